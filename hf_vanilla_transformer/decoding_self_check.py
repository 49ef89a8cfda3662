"""§6.1 on an untested version of transformers: checks that cached decoding still agrees with the model.

A checkpoint's code runs on whatever transformers its user has. Newer versions have renamed arguments that generation
passes to a model, and then every translation was wrong without an error. So the first `generate()` on a version newer
than all tested ones compares a tiny model's decoding with a loop over full forward passes.
"""

import threading

import torch
import transformers
from transformers import PreTrainedModel
from transformers.utils import logging

from .configuration_vanilla_transformer import VanillaTransformerConfig
from .decoding_beam_search import gnmt_length_penalty
from .modeling_compatibility import NEWEST_TESTED_TRANSFORMERS, parsed_version

logger = logging.get_logger(__name__)

_STEPS = 5
_lock = threading.Lock()
_this_thread = threading.local()  # the check calls generate()
# The result for the installed version, by model class: "" for no fault, or the fault.
_found: dict[type, str] = {}


def check_untested_transformers(model_class: type[PreTrainedModel]) -> None:
    """Compares decoding with full forward passes, once per process, if transformers is newer than tested.

    Args:
        model_class: the model with its head and `generate()`.

    Raises:
        RuntimeError: they differ. The message names both versions.
    """
    is_tested = parsed_version(transformers.__version__) <= NEWEST_TESTED_TRANSFORMERS
    if is_tested or _found.get(model_class) == "" or getattr(_this_thread, "is_checking", False):
        return
    newest = ".".join(map(str, NEWEST_TESTED_TRANSFORMERS))
    with _lock:
        if model_class not in _found:
            _this_thread.is_checking = True
            try:
                _found[model_class] = _fault(model_class)
            finally:
                _this_thread.is_checking = False
            if not _found[model_class]:
                logger.warning(
                    f"this model's code was tested up to transformers {newest}, and {transformers.__version__} is "
                    "installed; a quick comparison of cached and uncached decoding found no difference"
                )
        if _found[model_class]:
            raise RuntimeError(
                f"this model's code was tested up to transformers {newest}, and with {transformers.__version__} it "
                f"decodes wrongly: {_found[model_class]}; install an older one "
                f"(pip install 'transformers<={newest}.99') or a newer version of this code"
            )


def _fault(model_class: type[PreTrainedModel]) -> str:
    """The fault, or an empty string."""
    try:
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            return _difference(_small_model(model_class))
    except Exception as error:  # any error means that this version does not work
        return f"{type(error).__name__}: {error}"


def _small_model(model_class: type[PreTrainedModel]) -> PreTrainedModel:
    """A model with random weights; leaves the global random state untouched."""
    kind: type[VanillaTransformerConfig] = model_class.config_class
    shape = {"vocab_size": 13, "d_model": 8, "num_heads": 2, "d_ff": 16, "num_decoder_layers": 2}
    config = kind(**shape, **({} if "num_encoder_layers" in kind.fixed_fields else {"num_encoder_layers": 1}))
    with torch.device("meta"):
        model = model_class(config)
    model = model.float().to_empty(device="cpu").eval()
    model.tie_weights()
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        weight.uniform_(-1, 1, generator=generator)
    return model


def _difference(model: PreTrainedModel) -> str:
    """How cached decoding differs from full passes, or an empty string."""
    source = torch.tensor([[5, 6, 7, 8, 2], [1, 1, 9, 10, 2]], device="cpu")
    inputs = {"input_ids": source, "attention_mask": source.ne(1).long()}
    options = {**inputs, "max_new_tokens": _STEPS, "eos_token_id": None, "synced_gpus": False}
    expected = _greedy(model, inputs)
    for cache in ({}, {"use_cache": False}, {"cache_implementation": "static"}):
        if not torch.equal(model.generate(**options, num_beams=1, **cache), expected):
            return f"greedy search with {cache or 'the usual cache'} gives other tokens than full passes"
    beams = {**options, "num_beams": 3, "gnmt_length_penalty": 0.6, "return_dict_in_generate": True}
    for cache in ({}, {"use_cache": False}):
        found = model.generate(**beams, **cache)
        scores = _log_probs(model, inputs, found.sequences) / gnmt_length_penalty(_STEPS, 0.6)
        if not torch.allclose(found.sequences_scores, scores, atol=1e-4):
            return f"beam search with {cache or 'the usual cache'} gives other scores than full passes"
    return ""


def _greedy(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Greedy tokens, after the start token or the prompts (B, L), each by a pass over the whole prefix."""
    has_encoder = model.config.is_encoder_decoder
    ids = torch.zeros_like(inputs["input_ids"][:, :1]) if has_encoder else inputs["input_ids"]
    for _ in range(_STEPS):
        ids = torch.cat([ids, _logits(model, inputs, ids)[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids


def _logits(model: PreTrainedModel, inputs: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """The logits (B, L, V) of one pass over targets, or over prompts with their continuations (B, L)."""
    if model.config.is_encoder_decoder:
        return model(**inputs, decoder_input_ids=ids, use_cache=False).logits
    new = torch.ones_like(ids[:, inputs["input_ids"].shape[1] :])
    mask = torch.cat([inputs["attention_mask"], new], dim=1)
    return model(input_ids=ids, attention_mask=mask, use_cache=False).logits


def _log_probs(model: PreTrainedModel, inputs: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """The log-probability (B,) of the steps at the end of each sequence (B, L), by one pass."""
    log_probs = _logits(model, inputs, ids[:, :-1]).log_softmax(-1).gather(-1, ids[:, 1:, None])
    return log_probs[:, -_STEPS:].squeeze(-1).sum(1)
