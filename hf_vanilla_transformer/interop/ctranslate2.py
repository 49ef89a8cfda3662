"""Out: CTranslate2 models, float32 or int8, with the positions as an explicit table."""

import math
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..attention import MultiHeadAttention
from ..configuration_vanilla_transformer import VanillaTransformerConfig
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from .graph_folder import require_exportable, save_tokenizers
from .output_folder import OF_MODELS, output_folder

# Modules of one of our layers, and their names in a layer of CTranslate2's specification.
CTRANSLATE2_NAMES = {
    "self_attention": "self_attention",
    "self_attention_norm": "self_attention.layer_norm",
    "cross_attention": "attention",
    "cross_attention_norm": "attention.layer_norm",
    "feed_forward.fc1": "ffn.linear_0",
    "feed_forward.fc2": "ffn.linear_1",
    "feed_forward_norm": "ffn.layer_norm",
}

# Names of transformers' activations, and of the members of CTranslate2's.
CTRANSLATE2_ACTIVATIONS = {
    "relu": "RELU",
    "gelu": "GELU",
    "gelu_new": "GELUTanh",
    "gelu_pytorch_tanh": "GELUTanh",
    "quick_gelu": "GELUSigmoid",
    "silu": "SWISH",
    "swish": "SWISH",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
}

QUANTIZATIONS = ("float32", "int8")


def export_ctranslate2(
    model: VanillaTransformerForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    folder: str | Path,
    quantization: str = "float32",
    max_positions: int = 1024,
    target_tokenizer: PreTrainedTokenizerFast | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a folder that `ctranslate2.Translator` loads, and the tokenizer, which `AutoTokenizer` loads from it.

    CTranslate2 reads and returns tokens, not ids: feed it `tokenizer.convert_ids_to_tokens(ids)` of the ids that
    `text_to_ids` makes, which end with `</s>`. By itself it cuts sources after 1,024 tokens and translations after 256
    (`max_input_length`, `max_decoding_length`), and refuses positions beyond `max_positions`. With `length_penalty` and
    `min_decoding_length=0` its beam search is that of `generate(early_stopping=True)`; by itself it forbids `</s>` as
    the first token, which moves scores a little and now and then a translation. The attention that it returns is the
    one that aligns tokens here: the mean over the heads of the second-to-last layer. `inference.Translator` knows all
    this, and converts by itself.

    Args:
        model: what to export; left as it is.
        tokenizer: of the source, and also of the target where that has no vocabulary of its own.
        folder: must be free or empty.
        quantization: "float32", or "int8" with float32 activations.
        max_positions: rows of the table of positions, for source and target.
        target_tokenizer: of the target, where the model has two vocabularies; goes to the sub-folder
            `target_tokenizer`.
        overwrite: whether an earlier export in `folder` may be replaced.

    Raises:
        ImportError: ctranslate2 is not installed.
        OSError: `folder` has files in it, or is that of the model.
        ValueError: the model is not of this package, has adapters, or has a shape that CTranslate2 does not support;
            `quantization` or `max_positions` is impossible; or the tokenizer of the target is missing.
    """
    require_exportable(model)
    if max_positions < 1:
        raise ValueError(f"`max_positions`={max_positions} is not allowed; allowed: an integer of at least 1")
    if quantization not in QUANTIZATIONS:
        raise ValueError(f"`quantization`={quantization!r} is unknown; allowed: {', '.join(QUANTIZATIONS)}")
    config = model.config
    require_ctranslate2_support(config)
    if config.num_learned_positions is not None:
        max_positions = min(max_positions, config.num_learned_positions)
    with output_folder(folder, overwrite, source=model.name_or_path, own=OF_MODELS) as written:
        save_tokenizers(config, written, tokenizer, target_tokenizer)
        spec = _filled_spec(model, tokenizer, target_tokenizer or tokenizer, max_positions)
        spec.validate()
        spec.optimize(quantization=quantization)
        spec.save(str(written))


@torch.no_grad()
def _filled_spec(
    model: VanillaTransformerForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    target_tokenizer: PreTrainedTokenizerFast,
    max_positions: int,
) -> Any:
    config, spec = model.config, _spec(model.config)
    _fill_stack(spec.encoder, model.model.encoder, spec.encoder.embeddings[0], max_positions)
    _fill_stack(spec.decoder, model.model.decoder, spec.decoder.embeddings, max_positions)
    _fill(spec.decoder.projection, model.lm_head)
    tokens = vocabulary_tokens(target_tokenizer, config.vocab_size)
    spec.register_source_vocabulary(vocabulary_tokens(tokenizer, config.source_vocab_size or config.vocab_size))
    spec.register_target_vocabulary(tokens)
    spec.config.layer_norm_epsilon = config.layer_norm_eps
    spec.config.decoder_start_token = tokens[_id(config, "decoder_start_token_id")]
    spec.config.eos_token = tokens[_id(config, "eos_token_id")]
    spec.config.bos_token = spec.config.decoder_start_token  # only names a token that must exist
    spec.config.unk_token = str(target_tokenizer.unk_token or spec.config.eos_token)
    return spec


def require_ctranslate2_support(config: PreTrainedConfig) -> None:
    """Refuses a model that CTranslate2 cannot compute.

    Args:
        config: of the model.

    Raises:
        ValueError: it is of another kind, or has a shape that CTranslate2 does not know; the message names the field.
    """
    if config.model_type != VanillaTransformerConfig.model_type:  # a subclass may compute something else
        raise ValueError(
            f"the export to CTranslate2 is for {VanillaTransformerConfig.model_type} models, and this one is of the "
            f"kind {config.model_type}"
        )
    if config.activation_function not in CTRANSLATE2_ACTIVATIONS:
        raise ValueError(
            f"CTranslate2 does not support `activation_function`={config.activation_function!r}; "
            f"allowed: {', '.join(CTRANSLATE2_ACTIVATIONS)}"
        )
    if config.d_k != config.d_v or config.num_heads * (config.d_k or 0) != config.d_model:
        raise ValueError(
            f"CTranslate2 supports only heads of width d_model / num_heads, but `d_model`={config.d_model}, "
            f"`num_heads`={config.num_heads}, `d_k`={config.d_k}, `d_v`={config.d_v}"
        )

    for field in ("decoder_start_token_id", "eos_token_id"):
        _id(config, field)
    fits = {
        "norm": ("layer_norm",),
        "norm_position": ("post", "pre"),
        "feed_forward": ("plain",),
        "num_key_value_heads": (config.num_heads,),
        "position_encoding": ("sinusoidal", "learned", "none"),
        "attention_pattern": ("full",),
        "embedding_norm": (False,),
        "attention": ("softmax",),
        "cross_attention": ("softmax",),
        "source_kind": ("tokens",),
    }
    for field, allowed in fits.items():
        if getattr(config, field) not in allowed:
            raise ValueError(
                f"the export to CTranslate2 does not know `{field}`={getattr(config, field)!r}; "
                f"allowed: {', '.join(map(repr, allowed))}"
            )


def _spec(config: VanillaTransformerConfig) -> Any:
    try:
        from ctranslate2.specs import common_spec, transformer_spec
    except ImportError as error:
        raise ImportError("exporting to CTranslate2 needs its package: pip install ctranslate2") from error
    is_pre = config.norm_position == "pre"
    has_norm = is_pre if config.final_norm is None else config.final_norm
    spec = transformer_spec.TransformerSpec.from_config(
        (config.num_encoder_layers, config.num_decoder_layers),
        config.num_heads,
        pre_norm=is_pre,
        no_final_norm=not has_norm,
        activation=common_spec.Activation[CTRANSLATE2_ACTIVATIONS[config.activation_function]],
        # The attention that it returns is that of `translation_scoring.alignment_attention`.
        alignment_layer=max(0, config.num_decoder_layers - 2),
        alignment_heads=config.num_heads,
    )
    if has_norm and not is_pre:
        for stack in (spec.encoder, spec.decoder):
            # Their classes name this norm for pre-norm only, and refuse new names; the runtime takes it where it is.
            stack.__dict__["layer_norm"] = common_spec.LayerNormSpec()
    return spec


def _fill_stack(spec: Any, stack: Any, embedding_spec: Any, max_positions: int) -> None:
    config = stack.config
    embedding_spec.weight = stack.embed_tokens.weight.detach()
    spec.scale_embeddings = math.sqrt(config.d_model) if config.scale_embeddings else 1.0
    nothing = torch.zeros(1, max_positions, config.d_model)
    spec.position_encodings.encodings = stack.embed_positions(nothing, torch.arange(max_positions)[None])[0].detach()
    for layer_spec, layer in zip(spec.layer, stack.layers, strict=True):
        modules = dict(layer.named_modules())
        for ours, theirs in CTRANSLATE2_NAMES.items():
            if ours in modules:
                _fill(attrgetter(theirs)(layer_spec), modules[ours])
    if hasattr(spec, "layer_norm"):
        _fill(spec.layer_norm, stack.final_norm)


def _fill(spec: Any, module: nn.Module) -> None:
    if isinstance(module, MultiHeadAttention):
        groups = [["q_proj", "k_proj", "v_proj"], ["out_proj"]]
        if len(spec.linear) == 3:  # over the encoder's output, queries are made apart
            groups = [["q_proj"], ["k_proj", "v_proj"], ["out_proj"]]
        for linear, names in zip(spec.linear, groups, strict=True):
            projections: list[Any] = [module.get_submodule(name) for name in names]
            linear.weight = torch.cat([projection.weight.detach() for projection in projections])
            if projections[0].bias is not None:
                linear.bias = torch.cat([projection.bias.detach() for projection in projections])
    elif isinstance(module, nn.LayerNorm):
        spec.gamma, spec.beta = module.weight.detach(), module.bias.detach()
    elif isinstance(module, nn.Linear):
        spec.weight = module.weight.detach()
        if module.bias is not None:
            spec.bias = module.bias.detach()


def vocabulary_tokens(tokenizer: PreTrainedTokenizerBase, count: int) -> list[str]:
    """The token of each row of an embedding, as CTranslate2 reads and returns it.

    Args:
        tokenizer: of the side.
        count: rows of the embedding.

    Returns:
        Tokens; rows without one have a name that no text has.
    """
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    return [by_id.get(number, f"<unused {number}>") for number in range(count)]


def _id(config: PreTrainedConfig, name: str) -> int:
    value = getattr(config, name)
    if not isinstance(value, int):
        raise ValueError(f"CTranslate2 needs one token for `{name}`, which is {value}")
    return value
