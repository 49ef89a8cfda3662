"""A folder with code, config, weights and tokenizer in it, which needs nothing but transformers to load."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..configuration_decoder_only import VanillaTransformerDecoderConfig
from ..configuration_encoder_only import VanillaTransformerEncoderConfig
from ..configuration_vanilla_transformer import VanillaTransformerConfig
from ..data.tokenization import save_tokenizer
from ..modeling_decoder_only import VanillaTransformerDecoderModel, VanillaTransformerForCausalLM
from ..modeling_encoder_only import (
    VanillaTransformerEncoderModel,
    VanillaTransformerForMaskedLM,
    VanillaTransformerForSequenceClassification,
    VanillaTransformerForTokenClassification,
)
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration, VanillaTransformerModel
from ..tokenization_vanilla_transformer import VanillaTransformerTokenizer
from .model_files import sizes_of_files
from .uploading import upload_folder

_MODEL_CLASSES: dict[Any, str] = {
    VanillaTransformerModel: "AutoModel",
    VanillaTransformerForConditionalGeneration: "AutoModelForSeq2SeqLM",
    VanillaTransformerEncoderModel: "AutoModel",
    VanillaTransformerForMaskedLM: "AutoModelForMaskedLM",
    VanillaTransformerForSequenceClassification: "AutoModelForSequenceClassification",
    VanillaTransformerForTokenClassification: "AutoModelForTokenClassification",
    VanillaTransformerDecoderModel: "AutoModel",
    VanillaTransformerForCausalLM: "AutoModelForCausalLM",
}
_AUTO_CLASSES = {
    VanillaTransformerConfig: "AutoConfig",
    VanillaTransformerEncoderConfig: "AutoConfig",
    VanillaTransformerDecoderConfig: "AutoConfig",
    **_MODEL_CLASSES,
    VanillaTransformerTokenizer: "AutoTokenizer",
}


def save_self_contained(
    model: PreTrainedModel,
    folder: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    card: ModelCard | None = None,
    **kwargs: Any,
) -> None:
    """Saves a model so that `trust_remote_code=True` loads it where this package is not installed.

    The folder of a whole Transformer works with `AutoConfig`, `AutoModel`, `AutoModelForSeq2SeqLM` and
    `pipeline("translation")`; that of an encoder with `AutoModel`, `AutoModelForMaskedLM` and the Auto classes that
    classify; that of a decoder with `AutoModel` and `AutoModelForCausalLM`. Classes and model are left as they were: a
    later `save_pretrained` writes no code.

    Args:
        model: a model of this package.
        folder: made where there is none.
        tokenizer: saved next to it, with its code if it is a `VanillaTransformerTokenizer`. Any other needs no code:
            `PreTrainedTokenizerFast.from_pretrained(folder)` loads it without a question; `AutoTokenizer` reads the
            config of the model first, and so asks about its code.
        card: saved as README.md; `model_card` writes that of a whole Transformer.
        **kwargs: for `save_pretrained`, such as `max_shard_size`.

    Raises:
        TypeError: the model is not of this package.
        NotADirectoryError: `folder` is a file.
    """
    if Path(folder).is_file():
        raise NotADirectoryError(f"{folder} is a file; name a folder, or a name that is free")
    if type(model) not in _MODEL_CLASSES:
        names = ", ".join(cls.__name__ for cls in _MODEL_CLASSES)
        raise TypeError(f"cannot save the code of a {type(model).__name__}; allowed: {names}")
    with _code_is_saved(model):
        model.save_pretrained(folder, **kwargs)
        if isinstance(tokenizer, PreTrainedTokenizerFast):
            save_tokenizer(tokenizer, folder)
        elif tokenizer is not None:
            tokenizer.save_pretrained(folder)
    if card is not None:
        card.save(Path(folder) / "README.md")


def push_self_contained(
    model: PreTrainedModel,
    repo_id: str,
    tokenizer: PreTrainedTokenizerBase | None = None,
    card: ModelCard | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str = "Upload model with its code",
) -> str:
    """Uploads what `save_self_contained` saves to the Hub, as one commit, unproven; `publish` proves it first.

    Args:
        model: a model of this package.
        repo_id: "user/name"; made where there is none.
        tokenizer: uploaded with it.
        card: uploaded as README.md, as there. None leaves the card of the repository as it is.
        private: whether a new repository is private; None leaves it to the Hub.
        token: of the Hub; None means the one that is logged in.
        commit_message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        TypeError: the model is not of this package.
        UploadError: the Hub refused, or could not be reached; says what was uploaded.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_self_contained(model, folder, tokenizer, card)
        names = list(sizes_of_files(folder))
        options: dict[str, Any] = {"private": private, "commit_message": commit_message, "token": token}
        return upload_folder(folder, repo_id, names, **options).address


@contextmanager
def _code_is_saved(model: PreTrainedModel) -> Iterator[None]:
    """Registers the classes, as `register_for_auto_class` does for good, for as long as this lasts."""
    before = {cls: cls.__dict__.get("_auto_class") for cls in _AUTO_CLASSES}
    config = {name: getattr(model.config, name, None) for name in ("auto_map", "custom_pipelines")}
    try:
        for cls, auto_class in _AUTO_CLASSES.items():
            cls._auto_class = auto_class
        yield
    finally:
        for cls, value in before.items():
            cls._auto_class = value
        for name, value in config.items():
            if value is not None:
                setattr(model.config, name, value)
            elif hasattr(model.config, name):
                delattr(model.config, name)
