"""Which files of a folder are the model and what describes it, and which are the run's own."""

from collections.abc import Sequence
from pathlib import Path

from ..training.hub import MODEL_FILES

# What the folder of a model card holds besides.
CARD_FILES = (
    *("LICENSE*", "NOTICE*", "CITATION*", "recipe.yaml", "*.png", "*.svg", ".eval_results/*.yaml"),
    *("outputs/**/*", "*outputs*", "target_tokenizer/*.json"),
)
# What `save_self_contained` always writes.
_NEEDED = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def choose_files(
    folder: str | Path, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Chooses the files of a model's folder that are published: those of `MODEL_FILES` and `CARD_FILES`.

    Code is neither chosen nor left out: it is always written anew.

    Args:
        folder: of a model card, or of a run.
        include: patterns of further files, as of `Path.glob`.
        exclude: patterns of files that are left out, whatever the other patterns say.

    Returns:
        The names of the chosen files relative to the folder, and those of all others; both sorted.

    Raises:
        ValueError: a pattern of `include` or `exclude` is not one, or fits no file; or one of `exclude` fits a file
            without which there is no model.
    """
    chosen = {name for pattern in (*MODEL_FILES, *CARD_FILES) for name in _matching(Path(folder), pattern)}
    for option, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            try:
                names = _matching(Path(folder), pattern)
            except (ValueError, NotImplementedError, IndexError) as error:
                raise ValueError(f"--{option} {pattern!r} is not a pattern of files: {error}") from error
            if not names:
                raise ValueError(f"--{option} {pattern!r} fits no file of {folder}")
            if option == "exclude" and (needed := sorted(_NEEDED & names)):
                raise ValueError(f"--exclude {pattern!r} fits {needed[0]}, without which there is no model")
            chosen = chosen | names if option == "include" else chosen - names
    code = _matching(Path(folder), "*.py") - {name for pattern in include for name in _matching(Path(folder), pattern)}
    rest = _matching(Path(folder), "**/*") - chosen - code
    return sorted(chosen), sorted(rest)


def sizes_of_files(folder: str | Path) -> dict[str, int]:
    """Lists the files of a folder that is written.

    Args:
        folder: with files at any depth.

    Returns:
        Their sizes in bytes by their names relative to the folder, sorted.
    """
    found = {path.relative_to(folder).as_posix(): path for path in Path(folder).rglob("*") if path.is_file()}
    return {name: found[name].stat().st_size for name in sorted(found)}


def _matching(folder: Path, pattern: str) -> set[str]:
    if ".." in Path(pattern).parts:
        raise ValueError("it leads out of the folder")
    return {path.relative_to(folder).as_posix() for path in folder.glob(pattern) if path.is_file()}
