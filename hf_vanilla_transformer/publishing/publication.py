"""From a folder with a model to a repository that anybody can load: built, looked through, proven, then uploaded."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..inference import load_translator
from ..inference.shipped import place_of_model
from ..interop.output_folder import output_folder
from .card_checks import CARD, card_examples
from .environments import NAMED_VERSIONS, python_with_transformers, transformers_version
from .folder_checks import LARGEST_FILE, check_folder
from .hub_folder import save_self_contained
from .model_card import model_card, render_card, require_hub_name
from .model_files import choose_files, sizes_of_files
from .proof import Proof, expected_translations, prove_folder
from .results_schema import FORMAT
from .uploading import Upload, require_login, upload_folder, with_owner

# So many translations are compared at least.
LEAST_SENTENCES = 2


class UnfitFolderError(ValueError):
    """A folder that must not be published.

    Args:
        findings: what forbids it, a line each.
    """

    def __init__(self, findings: Sequence[str]) -> None:
        super().__init__("; ".join(findings))
        self.findings = list(findings)


@dataclass(frozen=True)
class Published:
    """What was built, proven and uploaded.

    Args:
        files: sizes in bytes, by name.
        left_out: files of the model's folder that are not part of it.
        translations: sentences and what they become; in a Space, each after the name of its model.
        proofs: what was proven, and on what.
        unproven: what was not, a line each.
        remarks: what is worth knowing, a line each.
        upload: the commit; None for a dry run.
    """

    files: dict[str, int]
    left_out: list[str]
    translations: dict[str, str]
    proofs: list[Proof]
    unproven: list[str]
    remarks: list[str]
    upload: Upload | None


@dataclass(frozen=True)
class ProvenOn:
    """With what a folder is proven, besides this interpreter.

    Args:
        pythons: further interpreters.
        versions: of transformers, for each of which an environment is made: "oldest", "newest" or a number.
        constraint: pip's file of constraints for these.
        environments: the folder in which they are kept; None makes them anew and removes them.
    """

    pythons: Sequence[str | Path] = ()
    versions: Sequence[str] = ()
    constraint: str | Path | None = None
    environments: str | Path | None = None

    def __post_init__(self) -> None:
        for version in self.versions:
            transformers_version(version)
        for option in ("constraint", "environments"):
            if getattr(self, option) is not None and not self.versions:
                raise ValueError(f"`{option}` has no effect without versions of transformers to prove on")
        if self.constraint is not None and not Path(self.constraint).is_file():
            raise FileNotFoundError(f"there is no file of constraints {self.constraint}")


def publish(
    folder: str | Path,
    repo_id: str | None = None,
    dry_run: bool = False,
    output: str | Path | None = None,
    overwrite: bool = False,
    sentences: Sequence[str] = (),
    proven_on: ProvenOn | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    allowed: Sequence[str] = (),
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Published:
    """Builds the self-contained folder of a model, looks through it, proves it, and uploads it.

    Args:
        folder: of a model card, or the output of a run; or the name of a shipped checkpoint.
        repo_id: "owner/name" on the Hub, or a "name" of one's own; None for that of the released card, or else the
            folder's name.
        dry_run: whether to stop before the upload.
        output: where the built and proven folder is kept, also if the upload fails; None does not keep it.
        overwrite: whether files in `output` are replaced.
        sentences: what is translated for the proof, besides the examples of the card.
        proven_on: with what it is proven besides this interpreter.
        include: patterns of further files (`choose_files`).
        exclude: patterns of files that stay here.
        allowed: texts that look like secrets or paths and are meant to be published.
        private: whether a new repository is private; None leaves it to the Hub.
        revision: a branch, made where there is none.
        commit_message: of the commit.
        say: is told what is being done, a line each.

    Returns:
        What was done.

    Raises:
        FileNotFoundError: there is no model in the folder.
        TypeError: the model is not of this package.
        UnfitFolderError: files must not be published.
        UploadError: the Hub refused, or could not be reached; says what was uploaded.
        ValueError: an option cannot be used, or the proof failed.
    """
    folder = place_of_model(folder)
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; give the folder of a model, such as the output of a run")
    results = _results(Path(folder))
    repository = repo_id or results.get("card", {}).get("repo_id") or Path(folder).resolve().name
    require_hub_name(repository)
    if not dry_run:
        require_login()
    chosen, left_out = choose_files(folder, include, exclude)
    if "adapter_config.json" in chosen:
        raise ValueError(f"{folder} is an adapter, which needs its model; publish the folder of the merged model")
    proven_on = proven_on or ProvenOn()
    model, tokenizer = load_translator([folder], "cpu")
    if not dry_run:
        repository = with_owner(repository)
    promised = {**dict.fromkeys(sentences), **dict(card_examples(folder) if CARD in chosen else ())}
    if len(promised) < LEAST_SENTENCES:
        raise ValueError(
            f"the proof translates {LEAST_SENTENCES} sentences or more, and there are {len(promised)}: give others by "
            f"--sentence, in Python sentences=..., or as examples in {CARD} (`widget:`, a `text` each)"
        )
    sentences = list(promised)
    say(f"translating {len(sentences)} sentences with {folder}")
    expected = expected_translations(model, tokenizer, sentences)
    translations = {sentence: each["pipeline"] for sentence, each in zip(sentences, expected, strict=True)}
    upload = None
    with tempfile.TemporaryDirectory() as scratch:
        temporary = Path(scratch)
        place = Path(output) if output is not None else temporary / "built"
        with output_folder(place, overwrite, folder) as built:
            card = _card(model, tokenizer, repository, Path(folder) / CARD if CARD in chosen else None, results)
            save_self_contained(model, built, tokenizer, card, max_shard_size=LARGEST_FILE)
            _copy(Path(folder), chosen, built)
            say("looking through the files")
            findings, remarks = check_folder(built, repository, allowed)
            findings += [
                f"{CARD}: promises that {sentence!r} becomes {text!r}, but it becomes {translations[sentence]!r}"
                for sentence, text in promised.items()
                if text is not None and text.split() != translations[sentence].split()
            ]
            if findings:
                raise UnfitFolderError(findings)
            interpreters = _interpreters(proven_on, temporary, say)
            proofs = [prove_folder(built, sentences, expected, **each) for each in interpreters]
            files = sizes_of_files(built)
        unproven = _unproven(proofs)
        if not dry_run:
            for line in unproven:
                say(f"not proven on {line}")
            message = commit_message or "Upload model with its code"
            upload = upload_folder(place, repository, list(files), private, revision, message, say=say)
    if not any(translations.values()):
        remarks.append("all these translations are empty")
    return Published(files, left_out, translations, proofs, unproven, remarks, upload)


def _copy(folder: Path, chosen: Sequence[str], built: Path) -> None:
    """Copies what was not written anew: card, results, pictures."""
    written = sizes_of_files(built)
    weights = [name for name in chosen if name.startswith("model") and ".safetensors" in name and "/" not in name]
    for name in chosen:
        if name not in written and name not in weights:
            (built / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, built / name)


def _results(folder: Path) -> dict[str, Any]:
    path = folder / "results.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return results if isinstance(results, dict) else {}


def _card(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    repository: str,
    present: Path | None,
    results: Mapping[str, Any],
) -> ModelCard | None:
    """Writes the card; None where people have written the one that is there. One of `release` gets the new name."""
    if results.get("format") != FORMAT:
        return None if present else model_card(model, repository, results, tokenizer=tokenizer)
    released: Any = results
    if present and present.read_text(encoding="utf-8") != str(render_card(released)):
        return None
    return render_card(released, repository if "/" in repository else None)


def _interpreters(proven_on: ProvenOn, temporary: Path, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """This interpreter first: what does not work in it need not wait for an environment."""
    say("proving the folder with this interpreter")
    yield {}
    for python in proven_on.pythons:
        say(f"proving the folder with {python}")
        yield {"python": python, "name": str(python)}
    for given in proven_on.versions:
        version = transformers_version(given)
        place = Path(proven_on.environments or temporary / "environments")
        say(f"preparing an environment with transformers {version}")
        python = python_with_transformers(version, place, proven_on.constraint)
        say(f"proving the folder with transformers {version}")
        yield {"python": python, "name": "an environment of its own", "version": version}


def _unproven(proofs: Sequence[Proof]) -> list[str]:
    proven = {".".join(proof.transformers.split(".")[:2]) for proof in proofs}
    lines = [
        f"transformers {version}, the {name} of the tested range: --prove_on {name}"
        for name, version in NAMED_VERSIONS.items()
        if version not in proven
    ]
    if all(proof.was_hidden for proof in proofs):
        lines.append("an environment in which the package was never installed: --prove_on or --python")
    return lines
