"""Loading a model to translate or score with: what is damaged or does not fit is refused, and named in one line."""

import importlib
import json
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from huggingface_hub.utils import HFValidationError, validate_repo_id
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from ..configuration_variants import require_tokens
from ..data.seals import SEAL, find_damage
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from .devices import choose_device
from .ensemble import EnsembleForConditionalGeneration
from .shipped import place_of_model

logger = logging.get_logger(__name__)

# The kinds of models that are loaded here, by the class that loads them.
KINDS = {
    AutoModelForSeq2SeqLM: "sequence-to-sequence",
    AutoModelForMaskedLM: "masked language",
    AutoModelForCausalLM: "causal language",
}
_CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
# Modules of the lab that register models of their own with the Auto classes, by model_type. They are imported when
# there is such a folder, because the lab builds on this module and not the other way round.
_LAB_MODULES = {"recurrent_seq2seq": "..lab.recurrent", "ablated_transformer": "..lab.ablations"}
_TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "*.model", "*.spm", "*.tiktoken")
# transformers builds a model under settings of the whole process: two threads at once spoil both models.
_LOADING = Lock()
# What a model and its tokenizer are made of.
LOADED_FILES = (_CONFIG, "*model*.safetensors*", "*model*.bin*", *_TOKENIZER_FILES)
# What is loaded here. The rest of a checkpoint, such as the optimizer's state, may be damaged or gone.
SEALED_FILES = (ADAPTER_CONFIG, "generation_config.json", *LOADED_FILES)


def load_translator(
    folders: Sequence[str | Path], device: str = "auto", dtype: str = "auto"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads a model and its tokenizer, or several models as an ensemble.

    A checkpoint that has a seal is compared with it. Weights that are missing, or not finite, are refused.

    Args:
        folders: of a checkpoint each, or the name of a shipped one (`shipped_checkpoints`) or of one on the Hub.
        device: where to compute, such as "cpu" or "cuda"; "auto" for the best device there is (`choose_device`).
        dtype: of the weights, such as "bfloat16"; "auto" leaves them as they were saved.

    Returns:
        The model, in eval mode, and the tokenizer of the first.

    Raises:
        FileNotFoundError: there is no such folder or model, or it has no tokenizer.
        ValueError: the device cannot be used, a file is damaged, the model is not a sequence-to-sequence model, its
            tokenizer does not fit, or the models or their tokenizers do not have one vocabulary. The message is one
            line that names the folder.
    """
    chosen = choose_device(device)
    models, tokenizers = [], []
    for folder in folders:
        model, tokenizer = load_model(folder, dtype), load_tokenizer(folder)
        require_tokens(model.config, f"{folder}: translating")
        rows = model.get_input_embeddings().weight.shape[0]
        if len(tokenizer) > rows:
            raise ValueError(
                f"the tokenizer of {folder} has {len(tokenizer)} tokens, but its model has embeddings for {rows}; give "
                "the model its own tokenizer, or call model.resize_token_embeddings(len(tokenizer)) and train it"
            )
        try:
            models.append(model.to(chosen).eval())
        except RuntimeError as error:
            raise ValueError(f"{folder} cannot be moved to `device`={device!r}: {_in_one_line(error)}") from error
        tokenizers.append(tokenizer)
        if tokenizer.get_vocab() != tokenizers[0].get_vocab():
            raise ValueError(f"the tokenizers of {folder} and {folders[0]} differ; an ensemble has one vocabulary")
    for folder, model in zip(folders, models, strict=True):
        if len(models) > 1 and not isinstance(model, VanillaTransformerForConditionalGeneration):
            raise ValueError(f"{folder} is a {model.config.model_type} model, and only Transformers decode together")
    return models[0] if len(models) == 1 else EnsembleForConditionalGeneration(models).eval(), tokenizers[0]


def load_config(folder: str | Path, auto_class: Any = AutoModelForSeq2SeqLM, **overrides: Any) -> PreTrainedConfig:
    """Loads the configuration of a model, after a look at the files beside it.

    Args:
        folder: of the model; or its name, as `load_translator` takes it.
        auto_class: of the kind that it has to be of, a key of `KINDS`; None for any kind.
        **overrides: fields that are to have other values.

    Returns:
        The configuration.

    Raises:
        FileNotFoundError: there is no such folder or model.
        ValueError: it is damaged, or is of another kind of model; the message is one line.
    """
    folder = place_of_model(folder)
    _check_place(folder)
    try:
        _register_kind(folder)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **overrides)
    except Exception as error:
        raise _unloadable(folder, error) from error
    is_of_kind = config.is_encoder_decoder
    if auto_class not in (None, AutoModelForSeq2SeqLM):
        is_of_kind = type(config) in auto_class._model_mapping
    if auto_class is not None and not is_of_kind:
        raise ValueError(
            f"the model of {folder} cannot be loaded: it is a {config.model_type} model, which is not a "
            f"{KINDS[auto_class]} model"
        )
    return config


def load_model(
    folder: str | Path, dtype: str = "auto", auto_class: Any = AutoModelForSeq2SeqLM, **overrides: Any
) -> PreTrainedModel:
    """Loads a model, and makes sure that all its weights are there, fit and are finite.

    Args:
        folder: of the model, or of a PEFT adapter; or a name, as `load_translator` takes it.
        dtype: of the weights; "auto" leaves them as they were saved.
        auto_class: as of `load_config`, but not None.
        **overrides: fields of its configuration that are to have other values.

    Returns:
        The model.

    Raises:
        FileNotFoundError: there is no such folder or model.
        ValueError: it is damaged, its weights are not those that its configuration asks for, or not finite; the
            message is one line.
    """
    folder = place_of_model(folder)
    _check_place(folder)
    adapter = Path(folder) / ADAPTER_CONFIG
    if not adapter.exists():
        load_config(folder, auto_class, **overrides)
    options = {"dtype": dtype, "trust_remote_code": False, "output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        if adapter.exists():
            _register_kind(json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"])
        with _LOADING, _quiet_loading():
            model, info = auto_class.from_pretrained(folder, **options, **overrides)
    except SafetensorError as error:
        where = _damaged_file(folder)
        raise ValueError(f"{where} is damaged or truncated ({_in_one_line(error)}); copy or train it again") from error
    except Exception as error:  # whatever the libraries raise: users want the folder and the reason, in one line
        raise _unloadable(folder, error) from error
    _check_weights(folder, model, info, " and ".join([_CONFIG, *overrides]))
    return model


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """Loads a tokenizer.

    Args:
        folder: of the tokenizer; or a name, as `load_translator` takes it.

    Returns:
        The tokenizer.

    Raises:
        FileNotFoundError: there is no such folder, or no tokenizer in it.
        ValueError: it cannot be loaded; the message is one line.
    """
    folder = place_of_model(folder)
    path = Path(folder)
    if path.is_dir() and not any(found for pattern in _TOKENIZER_FILES for found in path.glob(pattern)):
        raise FileNotFoundError(f"the folder {folder} has no tokenizer; save one there by tokenizer.save_pretrained()")
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # likewise
        if not path.is_dir():
            raise FileNotFoundError(
                f"there is no folder {folder}, and no such tokenizer could be loaded from the Hub: "
                f"{_in_one_line(error)}"
            ) from error
        raise ValueError(f"the tokenizer of {folder} cannot be loaded: {_in_one_line(error)}") from error


def _register_kind(folder: str | Path) -> None:
    """Makes sure that the Auto classes know the kind of a model, where the lab has it."""
    module = _LAB_MODULES.get(PreTrainedConfig.get_config_dict(folder)[0].get("model_type"))
    if module is not None:
        importlib.import_module(module, __package__)


def _unloadable(folder: str | Path, error: Exception) -> FileNotFoundError | ValueError:
    if not Path(folder).is_dir():
        return FileNotFoundError(
            f"there is no folder {folder}, and no such model could be loaded from the Hub: {_in_one_line(error)}"
        )
    return ValueError(f"the model of {folder} cannot be loaded: {_in_one_line(error)}")


def _check_place(folder: str | Path) -> None:
    """Refuses a path at which there is no model, and one whose files are not what its seal says."""
    path = Path(folder)
    if path.is_file():
        raise ValueError(f"{folder} is a file; give the folder of a model")
    if not path.is_dir():
        try:
            validate_repo_id(str(folder))
        except HFValidationError as error:
            raise FileNotFoundError(
                f"there is no folder {folder}, and it is not the name of a model on the Hub, such as OWNER/NAME"
            ) from error
        return
    if not (path / _CONFIG).exists() and not (path / ADAPTER_CONFIG).exists():
        checkpoints = sorted(path.glob("checkpoint-*"), key=lambda each: each.stat().st_mtime)
        hint = f"; it has checkpoints: give one, such as {checkpoints[-1]}" if checkpoints else ""
        raise FileNotFoundError(f"the folder {folder} has no model: no {_CONFIG}{hint}")
    if (path / SEAL).exists() and (damage := find_damage(path, SEALED_FILES)) is not None:
        raise ValueError(
            f"{folder} is damaged: {damage}; take another checkpoint, or remove its {SEAL} if the change was intended"
        )


def _check_weights(folder: str | Path, model: PreTrainedModel, info: dict[str, Any], described_by: str) -> None:
    for name, saved, expected in sorted(info["mismatched_keys"]):
        raise ValueError(
            f"{folder}: {name} is {tuple(saved)} in the file of weights, but {tuple(expected)} by {described_by}; "
            "these do not belong together"
        )
    for name in sorted(info["missing_keys"]):
        raise ValueError(f"{folder}: the file of weights has no {name}, but by {described_by} the model has one")
    if info["unexpected_keys"]:
        names = sorted(info["unexpected_keys"])
        logger.warning(f"{folder}: {len(names)} weights that the model does not have are ignored, such as {names[0]}")
    for name, weights in model.state_dict().items():
        if weights.is_floating_point() and not torch.isfinite(weights).all():
            count = int((~torch.isfinite(weights)).sum())
            raise ValueError(
                f"{folder}: {count} of the {weights.numel()} numbers of {name} are not finite; the file of weights is "
                "damaged, or the training had diverged"
            )


def _damaged_file(folder: str | Path) -> str | Path:
    """Finds the file of weights that cannot be read, or returns the folder where it cannot be told."""
    for file in sorted(Path(folder).glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except SafetensorError:
            return file
    return folder


def _in_one_line(error: Exception) -> str:
    return textwrap.shorten(str(error), 300, placeholder=" ...")


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """Takes away the bar and the report of several lines; what is wrong is said in one."""
    had_bar, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bar:
            logging.enable_progress_bar()
