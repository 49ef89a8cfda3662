"""What the imports of transformers' folders share: configs, what they may not say, and tokenizers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoTokenizer, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from .checkpoints import read_json, reason_of


def read_config(folder: str | Path, config_class: type[PreTrainedConfig]) -> Any:
    """Reads the `config.json` of a model of another kind.

    Args:
        folder: of the model.
        config_class: transformers' class for that kind.

    Returns:
        The config, an instance of that class.

    Raises:
        OSError: there is no such file.
        ValueError: it is damaged, or describes another kind of model.
    """
    path, kind = Path(folder) / "config.json", config_class.model_type
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: has no config.json; name a folder that has a model of type {kind!r} in it")
    model_type = read_json(path).get("model_type")
    if model_type != kind:
        raise ValueError(f"{path}: describes a model of type {model_type!r}; only {kind!r} can be converted")
    try:
        return config_class.from_pretrained(folder)
    except StrictDataclassError as error:
        raise ValueError(f"{path}: {reason_of(error)}") from error


def read_generation_config(folder: str | Path) -> GenerationConfig | None:
    """Reads how a model of another kind decodes: what ends its texts, its beams, and so on.

    Args:
        folder: of the model.

    Returns:
        What its `generation_config.json` says; None where it has none.

    Raises:
        OSError: the file is damaged.
    """
    is_there = (Path(folder) / "generation_config.json").is_file()
    return GenerationConfig.from_pretrained(folder) if is_there else None


def refuse_other_values(folder: str | Path, config: Any, only: Mapping[str, Any]) -> None:
    """Refuses a config with values that make the model another formula.

    Args:
        folder: of the model.
        config: as `read_config` returns it.
        only: names and the one value that each may have.

    Raises:
        ValueError: a value is another one; the message names it.
    """
    for name, value in only.items():
        found = getattr(config, name, value)
        if found != value:
            raise ValueError(f"{folder}: {name}={found!r} has no counterpart here; allowed: {value!r}")


def load_tokenizer(folder: str | Path, *files: str) -> PreTrainedTokenizerBase | None:
    """Reads the tokenizer of a folder, as it is.

    Args:
        folder: of the model.
        *files: names, one of which has to be there.

    Returns:
        The tokenizer; None where the folder has none of `files`.
    """
    if not any((Path(folder) / name).is_file() for name in files):
        return None
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
