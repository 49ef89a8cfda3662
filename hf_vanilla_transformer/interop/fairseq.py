"""In: transformer checkpoints of fairseq, and its dictionaries."""

import re
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from .checkpoints import (
    DECODER_EMBEDDING,
    ENCODER_EMBEDDING,
    PROJECTION,
    build,
    count_layers,
    count_rows,
    embedding_fields,
    errors_name,
    find,
    outranked_by,
    read_pickle,
    require_tensors,
    thirds,
)
from .sentencepiece import TokenIds, fast_tokenizer, read_sentencepiece

FAIRSEQ_NAMES = {
    r"^model\.": "",
    r"\.self_attention\.": ".self_attn.",
    r"\.self_attention_norm\.": ".self_attn_layer_norm.",
    r"\.cross_attention\.": ".encoder_attn.",
    r"\.cross_attention_norm\.": ".encoder_attn_layer_norm.",
    r"\.feed_forward\.": ".",
    r"\.feed_forward_norm\.": ".final_layer_norm.",
    r"\.final_norm\.": ".layer_norm.",
}

# What the names of 2018 are called since; fused projections are parted below.
_OLD_NAMES = {
    r"^(encoder\.layers\.\d+)\.layer_norms\.0\.": r"\1.self_attn_layer_norm.",
    r"^(encoder\.layers\.\d+)\.layer_norms\.1\.": r"\1.final_layer_norm.",
    r"^(decoder\.layers\.\d+)\.layer_norms\.0\.": r"\1.self_attn_layer_norm.",
    r"^(decoder\.layers\.\d+)\.layer_norms\.1\.": r"\1.encoder_attn_layer_norm.",
    r"^(decoder\.layers\.\d+)\.layer_norms\.2\.": r"\1.final_layer_norm.",
    r"^decoder\.embed_out$": "decoder.output_projection.weight",
}

_NO_WEIGHTS = r"\.version$|\._float_tensor$"
_SPECIAL_TOKENS = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
_BOS, _PAD, _EOS = 0, 1, 2
# fairseq numbers positions from the id of <pad> plus one.
_FIRST_POSITION = _PAD + 1

# Fields of our config, theirs among the options of training, and fairseq's default.
FAIRSEQ_FIELDS: dict[str, tuple[str, Any]] = {
    "num_heads": ("encoder_attention_heads", None),
    "activation_function": ("activation_fn", "relu"),
    "dropout": ("dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.0),
    "activation_dropout": ("activation_dropout", 0.0),
}


def load_fairseq(checkpoint: str | Path, **fields: Any) -> VanillaTransformerForConditionalGeneration:
    """Reads a fairseq transformer; its logits stay the same, and its ids: the decoder starts with `</s>`.

    The file is opened without running code of it: tensors, plain values and `argparse.Namespace` are all it may hold.
    Sizes are read off the tensors. The options of training in the file say the rest; where there are none, give
    `num_heads` at least.

    Args:
        checkpoint: a `.pt` file.
        **fields: of our config; they outrank what the file says.

    Returns:
        Our model with its weights, float32, in eval mode.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged or would run code, or the checkpoint does not fit; the message has the first
            names and shapes that differ.
    """
    with errors_name(checkpoint):
        return _load(checkpoint, fields)


def _load(checkpoint: str | Path, fields: Mapping[str, Any]) -> VanillaTransformerForConditionalGeneration:
    content = read_pickle(checkpoint)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError("not a fairseq checkpoint: there is no `model` in it")
    tensors, options = _upgraded(require_tensors(content["model"])), _options(content)
    encoder, decoder = "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"
    target = find(tensors, "embedding of the target", decoder)
    places = {
        ENCODER_EMBEDDING: find(tensors, "embedding of the source", encoder),
        DECODER_EMBEDDING: target,
        PROJECTION: find(tensors, "pre-softmax projection", "decoder.output_projection.weight", target),
    }
    read: dict[str, Any] = embedding_fields(*(tensors[name] for name in places.values()))
    read |= {ours: options.get(theirs, default) for ours, (theirs, default) in FAIRSEQ_FIELDS.items()}
    read |= _shape(tensors, options) | _position_fields(tensors, options)
    read = outranked_by(fields, read)
    if read["num_heads"] is None:
        raise ValueError("does not say encoder_attention_heads, and shapes of tensors do not tell; give `num_heads`")
    return build(read, tensors, FAIRSEQ_NAMES, places, _NO_WEIGHTS)


def load_fairseq_tokenizer(
    dictionary: str | Path, vocab_size: int, sentencepiece_model: str | Path | None = None
) -> PreTrainedTokenizerFast:
    """Builds a fast tokenizer from a `dict.*.txt`.

    Args:
        dictionary: lines of a token and a count; ids 0 to 3 are `<s>`, `<pad>`, `</s>`, `<unk>`, which it lacks.
        vocab_size: rows of the embedding, which fairseq rounds up; the rest are "madeupword0000" and so on.
        sentencepiece_model: what cuts text into those tokens. Without it, text must come cut by spaces, as fairseq
            itself wants it; decoding then joins what "@@" marks as parts of a word.

    Returns:
        A tokenizer that ends each text with `</s>`.

    Raises:
        OSError: a file cannot be read.
        ValueError: a line is not a token and a count, a token appears twice, or there are more than `vocab_size`.
    """
    with errors_name(dictionary):
        ids = _read_dictionary(Path(dictionary), vocab_size)
    if sentencepiece_model is not None:
        return fast_tokenizer(read_sentencepiece(sentencepiece_model), ids, _SPECIAL_TOKENS)
    backend = Tokenizer(models.WordLevel(dict(ids), unk_token=_SPECIAL_TOKENS["unk_token"]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # The word-piece decoder puts a space before each token that does not begin with its prefix: here, before all.
    backend.decoder = decoders.Sequence(
        [decoders.WordPiece(prefix="\ue000", cleanup=False), decoders.Fuse(), decoders.Replace("@@ ", "")]
    )
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", _EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **_SPECIAL_TOKENS,
    )


def _options(content: Mapping[str, Any]) -> dict[str, Any]:
    """The options of training: in `args`, or in newer files in `cfg`; none, where the file has neither."""
    options = content.get("args")
    if options is None:
        options = _by_name("cfg", content.get("cfg")).get("model")
    return _by_name("args", options)


def _by_name(what: str, options: Any) -> dict[str, Any]:
    if options is None:
        return {}
    if not isinstance(options, Namespace | dict):
        raise ValueError(f"`{what}` in it is a {type(options).__name__}; expected are options by their names")
    return vars(options) if isinstance(options, Namespace) else options


def _upgraded(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    upgraded = {}
    for name, tensor in state.items():
        for old, new in _OLD_NAMES.items():
            name = re.sub(old, new, name)
        fused = re.fullmatch(r"(.*)\.in_proj_(weight|bias)", name)
        if fused:
            for letter, part in zip("qkv", thirds(tensor), strict=True):
                upgraded[f"{fused[1]}.{letter}_proj.{fused[2]}"] = part
        else:
            upgraded[name] = tensor
    return upgraded


def _shape(tensors: Mapping[str, torch.Tensor], options: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("attention_heads", "normalize_before"):
        encoder, decoder = options.get(f"encoder_{name}"), options.get(f"decoder_{name}")
        if encoder != decoder and encoder is not None and decoder is not None:
            raise ValueError(
                f"the checkpoint has encoder_{name}={encoder} and decoder_{name}={decoder}; here, encoder and decoder "
                "share one value"
            )
    has_norm = "encoder.layer_norm.weight" in tensors
    # Without options, a norm at the end is what pre-norm stacks have and post-norm stacks have not.
    is_pre = options.get("encoder_normalize_before", has_norm)
    return {
        "num_encoder_layers": count_layers(tensors, "encoder.layers."),
        "num_decoder_layers": count_layers(tensors, "decoder.layers."),
        "d_ff": count_rows(tensors, "feed-forward network", "encoder.layers.0.fc1.weight"),
        "norm_position": "pre" if is_pre else "post",
        "final_norm": None if has_norm == bool(is_pre) else has_norm,
        "attention_bias": "encoder.layers.0.self_attn.q_proj.bias" in tensors,
        "layer_norm_eps": 1e-5,
        "scale_embeddings": not options.get("no_scale_embedding", False),
        "bos_token_id": _BOS,
        "pad_token_id": _PAD,
        "eos_token_id": _EOS,
        "decoder_start_token_id": _EOS,
    }


def _position_fields(tensors: dict[str, torch.Tensor], options: Mapping[str, Any]) -> dict[str, Any]:
    learned = [name for name in tensors if re.fullmatch(r"(en|de)coder\.embed_positions\.weight", name)]
    for name in learned:
        tensors[name] = tensors[name][_FIRST_POSITION:]
    if learned:
        return {"position_encoding": "learned", "num_learned_positions": tensors[learned[0]].shape[0]}
    if options.get("no_token_positional_embeddings"):
        return {"position_encoding": "none"}
    return {"sinusoid_layout": "concatenated_tensor2tensor", "position_offset": _FIRST_POSITION}


def _read_dictionary(path: Path, vocab_size: int) -> TokenIds:
    ids = {token: number for number, token in enumerate(_SPECIAL_TOKENS.values())}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            fields = line.rstrip("\n").rsplit(" ", 1)
            if len(fields) != 2 or not fields[1].isdigit():
                raise ValueError(f"{path}, line {number}: {line!r} is not a token, a space and a count")
            if fields[0] in ids:
                raise ValueError(f"{path}, line {number}: {fields[0]!r} appears twice")
            ids[fields[0]] = len(ids)
    if len(ids) > vocab_size:
        raise ValueError(f"{path}: {len(ids)} tokens with the special ones, but the embedding has {vocab_size} rows")
    while len(ids) < vocab_size:  # the id in the name: the dictionary may have some of its own, counted from 0
        ids[f"madeupword{len(ids):04}"] = len(ids)
    return ids
