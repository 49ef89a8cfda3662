"""In: GPT-2 folders, as transformers' GPT2LMHeadModel saves them."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import GPT2Config, PreTrainedTokenizerBase
from transformers.utils import logging

from ..modeling_decoder_only import VanillaTransformerForCausalLM
from .checkpoints import PROJECTION, build, errors_name, read_folder
from .model_folder import load_tokenizer, read_config, read_generation_config, refuse_other_values

logger = logging.get_logger(__name__)

GPT2_NAMES = {
    r"^model\.embed_tokens\.": "transformer.wte.",
    r"^model\.embed_positions\.": "transformer.wpe.",
    r"^model\.final_norm\.": "transformer.ln_f.",
    r"^model\.layers\.": "transformer.h.",
    r"\.self_attention\.([qkv])_proj\.(\w+)$": r".attn.c_attn.\2[\1]",
    r"\.self_attention\.out_proj\.": ".attn.c_proj.",
    r"\.self_attention_norm\.": ".ln_1.",
    r"\.feed_forward\.fc1\.": ".mlp.c_fc.",
    r"\.feed_forward\.fc2\.": ".mlp.c_proj.",
    r"\.feed_forward_norm\.": ".ln_2.",
}

# Fields of our config, and theirs.
GPT2_FIELDS = {
    "vocab_size": "vocab_size",
    "d_model": "n_embd",
    "num_decoder_layers": "n_layer",
    "num_heads": "n_head",
    "num_learned_positions": "n_positions",
    "activation_function": "activation_function",
    "dropout": "resid_pdrop",
    "attention_dropout": "attn_pdrop",
    "layer_norm_eps": "layer_norm_epsilon",
    "tie_word_embeddings": "tie_word_embeddings",
    "bos_token_id": "bos_token_id",
    "pad_token_id": "pad_token_id",
    "eos_token_id": "eos_token_id",
}
# What no field of ours says, and the values with which GPT-2 is the formula of ours.
_ONLY = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}
# Their layers multiply by a matrix from its other side.
_TRANSPOSED = r"\.(c_attn|c_proj|c_fc)\.weight$"
# Causal masks, which old versions save, and the copy of the tied matrix.
_NO_WEIGHTS = r"\.attn\.(masked_)?bias$|^lm_head\.weight$"


def load_gpt2(folder: str | Path) -> VanillaTransformerForCausalLM:
    """Reads a GPT-2 model from its folder; logits and generated ids stay those of the original.

    So does its `generation_config`, where the folder has one.

    Args:
        folder: has `config.json` and the weights in it, such as a download of openai-community/gpt2.

    Returns:
        Our model with its weights, float32, in eval mode.

    Raises:
        OSError: a file is missing.
        ValueError: a file is damaged, the model is another one, or the checkpoint does not fit; the message has the
            first names and shapes that differ.
    """
    with errors_name(folder):
        config = read_config(folder, GPT2Config)
        refuse_other_values(folder, config, _ONLY)
        if config.embd_pdrop != config.resid_pdrop:
            logger.warning(
                f"{folder}: embd_pdrop={config.embd_pdrop} is ignored; embeddings and layers share one dropout here, "
                f"resid_pdrop={config.resid_pdrop}"
            )
        tensors = _as_linear(read_folder(folder))
        fields = {ours: getattr(config, theirs) for ours, theirs in GPT2_FIELDS.items()}
        model = build(
            {
                **fields,
                "d_ff": config.n_inner or 4 * config.n_embd,
                "norm_position": "pre",
                "position_encoding": "learned",
                "scale_embeddings": False,
                "attention_bias": True,
                "label_smoothing": 0.0,
            },
            tensors,
            GPT2_NAMES,
            {} if config.tie_word_embeddings else {PROJECTION: "lm_head.weight"},
            _NO_WEIGHTS,
            VanillaTransformerForCausalLM,
        )
        model.generation_config = read_generation_config(folder) or model.generation_config
        return model


def load_gpt2_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase | None:
    """Reads the tokenizer that a GPT-2 folder has in it, as it is.

    Args:
        folder: as for `load_gpt2`.

    Returns:
        The tokenizer; None where the folder has neither a `tokenizer.json` nor a `merges.txt`.
    """
    return load_tokenizer(folder, "tokenizer.json", "merges.txt")


def _as_linear(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Their tensors by the names of a model with its head, with matrices as `nn.Linear` has them."""
    named = {}
    for name, tensor in tensors.items():
        name = f"transformer.{name}" if re.match(r"(wte|wpe|h|ln_f)\.", name) else name
        named[name] = tensor.t() if re.search(_TRANSPOSED, name) and tensor.dim() == 2 else tensor
    return named
