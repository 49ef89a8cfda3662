"""A Space of the Hub that shows models on the page of `vanilla-transformer demo`: built, looked through, run, uploaded.

The folder has all that a Space needs: `app.py`, `requirements.txt`, a card whose metadata says that it is a Gradio app,
this package as source (so that it runs whatever version is on an index), and the models: those of this machine as
files, those of the Hub by their names.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path
from typing import Any

from huggingface_hub import SpaceCardData
from huggingface_hub.repocard import metadata_load
from transformers import PreTrainedModel

from ..inference import load_translator
from ..inference.shipped import place_of_model
from ..interop.output_folder import output_folder
from ..training.hub import MODEL_FILES
from .card_checks import CARD, card_examples
from .folder_checks import check_folder
from .model_card import require_hub_name
from .model_files import choose_files, sizes_of_files
from .proof import expected_translations
from .publication import Published, UnfitFolderError
from .space_proof import prove_space
from .uploading import require_login, upload_folder, with_owner

# What the package needs, as pyproject.toml has it; of torch, transformers and gradio the versions that were proven.
REQUIREMENTS = (
    *("accelerate>=1.1", "datasets>=4.0", "evaluate>=0.4", "huggingface_hub>=1.31", "numpy>=1.26", "safetensors>=0.5"),
    *("sacrebleu>=2.4", "tokenizers>=0.22", "tqdm>=4.66.3", "matplotlib>=3.8", "pyyaml>=6.0", "fastapi>=0.115"),
)
PROVEN = ("torch", "transformers", "gradio")
# What looks like a path of a machine in this package's own source, and is an example in a docstring.
_IN_SOURCE = ("/scratch/multi30k",)

_PACKAGE = Path(__file__).parents[1]
_MODELS = "models"
_TITLE = "See a Transformer think"
_APP = '''"""The page of `vanilla-transformer demo` as a Space."""

from hf_vanilla_transformer.demo.server import launch

MODELS = [
{models}
]

if __name__ == "__main__":
    launch(MODELS)
'''
_TEXT = """
# {title}

An encoder-decoder Transformer translates while you type: its beam search as a tree, with what was kept, pruned and
finished and what the length penalty reranked; the attention of every head behind each hypothesis; the probabilities of
the next tokens, of which you can choose another; and the encoding of positions. The page loads nothing from elsewhere,
and works with the keyboard alone.

| Model | Licence |
|---|---|
{models}

The code in `hf_vanilla_transformer` is under the Apache License 2.0. On a machine of your own:
`pip install -r requirements.txt && python app.py`.
"""


def publish_space(
    models: Sequence[str | Path],
    repo_id: str | None = None,
    dry_run: bool = False,
    output: str | Path | None = None,
    overwrite: bool = False,
    allowed: Sequence[str] = (),
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Published:
    """Builds the folder of a Space, looks through it, runs it in a process of its own, and uploads it.

    Args:
        models: folders, which are copied, names of shipped checkpoints, or names on the Hub, which stay there; the
            first is the one that the page begins with.
        repo_id: "owner/name" on the Hub, or a "name" of one's own; None for the first model's name with "-demo".
        dry_run: whether to stop before the upload.
        output: where the built and proven folder is kept, also if the upload fails; None does not keep it.
        overwrite: whether files in `output` are replaced.
        allowed: texts that look like secrets or paths and are meant to be published.
        private: whether a new repository is private; None leaves it to the Hub.
        revision: a branch, made where there is none.
        commit_message: of the commit.
        say: is told what is being done, a line each.

    Returns:
        What was done.

    Raises:
        FileNotFoundError: there is no such model.
        ImportError: there is no Gradio (extra `demo`), so that nothing can be proven.
        UnfitFolderError: files must not be published.
        UploadError: the Hub refused, or could not be reached; says what was uploaded.
        ValueError: an option cannot be used, two models have one name, a model needs packages that a Space does not
            have, is on the Hub and not for everybody, or the Space does not answer as the models do here.
    """
    versions = _proven_versions()
    names = [str(model) for model in models]
    places = {name: place for name in names if (place := Path(place_of_model(name))).is_dir()}
    found = {name: places[name].resolve().name if name in places else name for name in names}
    if len(set(found.values())) != len(models):
        raise ValueError(f"two models are called alike ({', '.join(found.values())}); give folders of different names")
    repository = repo_id or f"{found[names[0]].rpartition('/')[2]}-demo"
    require_hub_name(repository)
    if not dry_run:
        require_login()
    expected, translations = {}, {}
    for name in names:
        say(f"translating with {name}")
        examples = card_examples(places[name]) if name in places else []
        sentence = examples[0][0] if examples else "a b c"
        model, tokenizer = load_translator([name], "cpu")
        _require_plain(name, model)
        (translated,) = expected_translations(model, tokenizer, [sentence])
        expected[found[name]] = (sentence, translated["generate"])
        translations[f"{found[name]}: {sentence}"] = translated["generate"]
    if not dry_run:
        repository = with_owner(repository)
    upload = None
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(output) if output is not None else Path(scratch) / "built"
        with output_folder(place, overwrite) as built:
            _write(built, found, places, versions)
            say("looking through the files")
            findings, remarks = check_folder(built, repository, [*allowed, *_IN_SOURCE], is_model=False)
            if findings:
                raise UnfitFolderError(findings)
            # Before it runs, which may leave files there.
            listed = sizes_of_files(built)
            say("running app.py as a Space does")
            prove_space(built, expected, is_offline=len(places) == len(names))
        if not dry_run:
            message = commit_message or "Upload the Space"
            upload = upload_folder(
                place, repository, list(listed), private, revision, message, say=say, repo_type="space"
            )
    proven = ", ".join(f"{name} {number}" for name, number in versions.items())
    remarks.append(f"app.py ran in a process of its own, and answered as the models do here ({proven})")
    return Published(listed, [], translations, [], [], remarks, upload)


def _write(built: Path, found: dict[str, str], places: dict[str, Path], versions: dict[str, str]) -> None:
    """Writes the whole folder."""
    shutil.copytree(_PACKAGE, built / _PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    shutil.copyfile(_own_licence(), built / "LICENSE")
    for name, place in places.items():
        wanted = {path for pattern in (*MODEL_FILES, "LICENSE*", "NOTICE*") for path in place.glob(pattern)}
        for file in (each for each in choose_files(place)[0] if place / each in wanted):
            goal = built / _MODELS / found[name] / file
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place / file, goal)
    folders = [f"{_MODELS}/{model}" if name in places else model for name, model in found.items()]
    (built / "app.py").write_text(_APP.format(models="\n".join(f"    {each!r}," for each in folders)), encoding="utf-8")
    pins = [f"{name}=={number}" for name, number in versions.items()]
    (built / "requirements.txt").write_text("\n".join([*pins, *REQUIREMENTS]) + "\n", encoding="utf-8")
    rows = [f"| {model} | {_licence(places.get(name))} |" for name, model in found.items()]
    text = _TEXT.format(title=_TITLE, models="\n".join(rows))
    hub = [model for name, model in found.items() if name not in places]
    (built / CARD).write_text(f"---\n{_metadata(hub, versions['gradio']).to_yaml()}\n---\n{text}", encoding="utf-8")


def _require_plain(name: str, model: PreTrainedModel) -> None:
    """Refuses a model that needs other packages than those of `REQUIREMENTS`."""
    if getattr(model, "peft_config", None):
        raise ValueError(
            f"{name} is an adapter, which needs peft, and a Space does not have it; merge it into its model by peft's "
            "merge_and_unload(), and publish that"
        )
    if getattr(model.config, "quantization_config", None) is not None:
        raise ValueError(
            f"the weights of {name} are quantised (`quantization_config`), which needs packages that a Space does not "
            "have; publish the model with its weights as they were trained"
        )


def _own_licence() -> Path:
    """The licence of this package: where it was installed, or beside it in a clone."""
    try:
        found = [each for each in files("hf-vanilla-transformer") or [] if each.name == "LICENSE"]
    except PackageNotFoundError:
        found = []
    return Path(str(found[0].locate())) if found else _PACKAGE.parent / "LICENSE"


def _metadata(hub: list[str], gradio: str) -> SpaceCardData:
    """What the Hub reads to run it."""
    options: dict[str, Any] = {"models": hub} if hub else {}
    return SpaceCardData(
        title=_TITLE,
        sdk="gradio",
        sdk_version=gradio,
        python_version=f"{sys.version_info.major}.{sys.version_info.minor}",
        app_file="app.py",
        tags=["vanilla_transformer", "beam-search", "attention", "visualization"],
        emoji="🌳",
        colorFrom="blue",
        colorTo="yellow",
        pinned=False,
        short_description="Beam search and attention of a Transformer, live",
        **options,
    )


def _licence(place: Path | None) -> str:
    """What the card of a model says."""
    metadata = metadata_load(place / CARD) if place is not None and (place / CARD).exists() else None
    said = (metadata or {}).get("license_name") or (metadata or {}).get("license")
    return str(said) if said else "see its card" if place is None else "not stated"


def _proven_versions() -> dict[str, str]:
    """The versions that the Space is run with here, without the name of a build such as "+cpu"."""
    try:
        return {name: version(name).partition("+")[0] for name in PROVEN}
    except PackageNotFoundError as error:
        raise ImportError(
            f"a Space is run before it is published, and there is no {error.name}: "
            "pip install 'hf-vanilla-transformer[demo]'"
        ) from error


__all__ = ["PROVEN", "REQUIREMENTS", "publish_space"]
