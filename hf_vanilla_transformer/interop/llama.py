"""In: LLaMA folders, as transformers' LlamaForCausalLM saves them."""

from pathlib import Path

from transformers import LlamaConfig, PreTrainedTokenizerBase

from ..modeling_decoder_only import VanillaTransformerForCausalLM
from .checkpoints import PROJECTION, build, errors_name, read_folder
from .model_folder import load_tokenizer, read_config, read_generation_config, refuse_other_values

LLAMA_NAMES = {
    r"^model\.final_norm\.": "model.norm.",
    r"\.self_attention_norm\.": ".input_layernorm.",
    r"\.feed_forward_norm\.": ".post_attention_layernorm.",
    r"\.self_attention\.out_proj\.": ".self_attn.o_proj.",
    r"\.self_attention\.": ".self_attn.",
    r"\.feed_forward\.gate\.": ".mlp.gate_proj.",
    r"\.feed_forward\.fc1\.": ".mlp.up_proj.",
    r"\.feed_forward\.fc2\.": ".mlp.down_proj.",
}

# Fields of our config, and theirs.
LLAMA_FIELDS = {
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "d_ff": "intermediate_size",
    "num_decoder_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "d_k": "head_dim",
    "d_v": "head_dim",
    "activation_function": "hidden_act",
    "attention_dropout": "attention_dropout",
    "attention_bias": "attention_bias",
    "layer_norm_eps": "rms_norm_eps",
    "tie_word_embeddings": "tie_word_embeddings",
    "bos_token_id": "bos_token_id",
    "pad_token_id": "pad_token_id",
    "eos_token_id": "eos_token_id",
}
# Angles are a formula, and the copy of a tied matrix.
_NO_WEIGHTS = r"\.rotary_emb\.inv_freq$|^lm_head\.weight$"


def load_llama(folder: str | Path) -> VanillaTransformerForCausalLM:
    """Reads a LLaMA model from its folder; logits and generated ids stay those of the original.

    So does its `generation_config`, where the folder has one. `max_position_embeddings` is left out, because rotary
    positions have no longest length.

    Args:
        folder: has `config.json` and the weights in it, in one file.

    Returns:
        Our model with its weights, float32, in eval mode.

    Raises:
        OSError: a file is missing.
        ValueError: a file is damaged, the model is another one, its angles are scaled, or the checkpoint does not fit;
            the message has the first names and shapes that differ.
    """
    with errors_name(folder):
        config = read_config(folder, LlamaConfig)
        refuse_other_values(folder, config, {"mlp_bias": False})
        angles = config.rope_parameters
        if angles.get("rope_type", "default") != "default":
            raise ValueError(f"rope_type={angles['rope_type']!r} has no counterpart here; allowed: 'default'")
        fields = {ours: getattr(config, theirs) for ours, theirs in LLAMA_FIELDS.items()}
        model = build(
            {
                **fields,
                "attention_dropout": config.attention_dropout or 0.0,
                "rotary_base": angles["rope_theta"],
                "position_encoding": "rotary",
                "sinusoid_layout": "concatenated",
                "norm": "rms_norm",
                "norm_position": "pre",
                "feed_forward": "gated",
                "scale_embeddings": False,
                "dropout": 0.0,
                "label_smoothing": 0.0,
            },
            read_folder(folder),
            LLAMA_NAMES,
            {} if config.tie_word_embeddings else {PROJECTION: "lm_head.weight"},
            _NO_WEIGHTS,
            VanillaTransformerForCausalLM,
        )
        model.generation_config = read_generation_config(folder) or model.generation_config
        return model


def load_llama_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase | None:
    """Reads the tokenizer that a LLaMA folder has in it, as it is.

    Args:
        folder: as for `load_llama`.

    Returns:
        The tokenizer; None where the folder has no `tokenizer.json`.
    """
    return load_tokenizer(folder, "tokenizer.json")
