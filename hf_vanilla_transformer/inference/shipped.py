"""Checkpoints that come with a clone of the repository, by their names: what `translate` has without --model."""

from pathlib import Path

DEFAULT_TRANSLATOR = "multi30k-de-en-tiny"  # German to English, image captions

# Beside the package in a clone; a wheel is code, and has none.
_FOLDER = Path(__file__).resolve().parents[2] / "model_cards"


def shipped_checkpoints() -> dict[str, Path]:
    """Returns the folders of the checkpoints that came with this copy of the package, by name; a wheel has none."""
    return {path.parent.name: path.parent for path in sorted(_FOLDER.glob("*/config.json"))}


def place_of_model(name: str | Path) -> str | Path:
    """Finds a model by its name: a folder that is there, else a shipped checkpoint, else a name on the Hub.

    Args:
        name: what a person calls the model.

    Returns:
        The folder of the shipped checkpoint of that name; what was given, if there is none or a folder is called so.
    """
    return name if Path(name).exists() else shipped_checkpoints().get(str(name), name)


def default_translator() -> str:
    """Returns the name of the checkpoint that translates where no model was named.

    Raises:
        FileNotFoundError: this copy of the package came without checkpoints; the message says where they are.
    """
    if DEFAULT_TRANSLATOR not in shipped_checkpoints():
        raise FileNotFoundError(
            f"no model was named, and this copy of the package has no {DEFAULT_TRANSLATOR}, which is meant "
            "then: checkpoints are in the folder model_cards of the source repository, beside the package of a clone "
            "(pip install -e .), and not in a wheel"
        )
    return DEFAULT_TRANSLATOR


__all__ = ["DEFAULT_TRANSLATOR", "default_translator", "place_of_model", "shipped_checkpoints"]
