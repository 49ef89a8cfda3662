"""In: Marian and OPUS-MT folders, as transformers' MarianMTModel saves them, weights and tokenizers."""

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import GenerationConfig, MarianConfig, PreTrainedTokenizerFast
from transformers.utils import logging

from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from .checkpoints import (
    DECODER_EMBEDDING,
    ENCODER_EMBEDDING,
    PROJECTION,
    PROJECTION_BIAS,
    build,
    embedding_fields,
    errors_name,
    find,
    read_folder,
    read_json,
)
from .model_folder import read_config, read_generation_config
from .sentencepiece import TokenIds, fast_tokenizer, read_sentencepiece

logger = logging.get_logger(__name__)

MARIAN_NAMES = {
    r"\.encoder\.embed_tokens\.": ".shared.",
    r"\.self_attention\.": ".self_attn.",
    r"\.self_attention_norm\.": ".self_attn_layer_norm.",
    r"\.cross_attention\.": ".encoder_attn.",
    r"\.cross_attention_norm\.": ".encoder_attn_layer_norm.",
    r"\.feed_forward\.": ".",
    r"\.feed_forward_norm\.": ".final_layer_norm.",
}

# Fields of our config, and theirs.
MARIAN_FIELDS = {
    "d_model": "d_model",
    "num_encoder_layers": "encoder_layers",
    "num_decoder_layers": "decoder_layers",
    "num_heads": "encoder_attention_heads",
    "d_ff": "encoder_ffn_dim",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "activation_function": "activation_function",
    "scale_embeddings": "scale_embedding",
    "bos_token_id": "bos_token_id",
    "pad_token_id": "pad_token_id",
    "eos_token_id": "eos_token_id",
    "decoder_start_token_id": "decoder_start_token_id",
}

# Positions are a formula; old checkpoints also store the tied matrices once for each use.
_NO_WEIGHTS = r"embed_positions\.weight$|^(model\.shared|model\.(en|de)coder\.embed_tokens|lm_head)\.weight$"
_LOGITS_BIAS = "final_logits_bias"


def load_marian(folder: str | Path) -> VanillaTransformerForConditionalGeneration:
    """Reads a MarianMTModel from its folder; logits and generated ids stay those of the original.

    Ids of special tokens stay Marian's: `</s>` is mostly 0, and the decoder starts with `<pad>`. So does its
    `generation_config`. Where the logits have a bias that is not zero, the config says `final_logits_bias`.

    Args:
        folder: has `config.json` and the weights in it, such as a download of Helsinki-NLP/opus-mt-en-de.

    Returns:
        Our model with its weights, float32, in eval mode.

    Raises:
        OSError: a file is missing.
        ValueError: a file is damaged, the model is another one, or the checkpoint does not fit; the message has the
            first names and shapes that differ.
    """
    with errors_name(folder):
        return _load(folder)


def _load(folder: str | Path) -> VanillaTransformerForConditionalGeneration:
    config = read_config(folder, MarianConfig)
    for encoder, decoder in (
        ("encoder_attention_heads", "decoder_attention_heads"),
        ("encoder_ffn_dim", "decoder_ffn_dim"),
    ):
        if getattr(config, encoder) != getattr(config, decoder):
            raise ValueError(
                f"{folder}: {encoder}={getattr(config, encoder)} differs from {decoder}={getattr(config, decoder)}; "
                "here, encoder and decoder share one value"
            )
    if config.encoder_layerdrop or config.decoder_layerdrop:
        logger.warning(
            f"{folder}: encoder_layerdrop and decoder_layerdrop are ignored; no layers are dropped in training"
        )
    tensors = read_folder(folder)
    places = _embedding_places(config, tensors)
    fields = {ours: getattr(config, theirs) for ours, theirs in MARIAN_FIELDS.items()}
    fields |= embedding_fields(*(tensors[places[name]] for name in (ENCODER_EMBEDDING, DECODER_EMBEDDING, PROJECTION)))
    ignored = _NO_WEIGHTS
    if tensors.get(_LOGITS_BIAS, torch.zeros(1)).any():
        fields["final_logits_bias"] = True
        places[PROJECTION_BIAS] = _LOGITS_BIAS
    else:
        ignored += f"|^{_LOGITS_BIAS}$"
    model: VanillaTransformerForConditionalGeneration = build(
        {
            **fields,
            "sinusoid_layout": "concatenated",
            "attention_bias": True,
            "layer_norm_eps": 1e-5,
        },
        tensors,
        MARIAN_NAMES,
        places,
        ignored,
    )
    model.generation_config = _generation_config(folder)
    return model


def load_marian_tokenizers(folder: str | Path) -> tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]:
    """Builds fast tokenizers from `source.spm`, `target.spm` and `vocab.json`.

    Marian cuts source and target by two SentencePiece models, and one fast tokenizer can hold one way of cutting. The
    first tokenizer encodes the source, and with one vocabulary also decodes the target: all that translating needs.
    The second encodes the target, which training and scoring need. If the two models are the same file, so are the
    tokenizers. With separate vocabularies (`target_vocab.json`) the second decodes the target too.

    A language code such as ">>fr<<" is a token wherever it stands, Marian's only at the beginning of a text.

    Args:
        folder: has those files in it.

    Returns:
        For the source, and for the target; the same object twice if one tokenizer serves both.

    Raises:
        OSError: a file is missing.
        ValueError: a SentencePiece model is of a kind that a fast tokenizer cannot follow.
    """
    folder = Path(folder)
    source_ids = target_ids = _read_ids(folder / "vocab.json")
    if _says_separate_vocabularies(folder):
        target_ids = _read_ids(folder / "target_vocab.json")
    source, target = folder / "source.spm", folder / "target.spm"
    is_one = source.read_bytes() == target.read_bytes() and source_ids == target_ids
    specials = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    tokenizer = fast_tokenizer(read_sentencepiece(source), source_ids, specials, _language_codes(source_ids))
    if is_one:
        return tokenizer, tokenizer
    return tokenizer, fast_tokenizer(read_sentencepiece(target), target_ids, specials, _language_codes(target_ids))


def _embedding_places(config: MarianConfig, tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    shared, encoder, decoder, projection = (
        "model.shared.weight",
        "model.encoder.embed_tokens.weight",
        "model.decoder.embed_tokens.weight",
        "lm_head.weight",
    )
    if config.share_encoder_decoder_embeddings and config.tie_word_embeddings:
        return dict.fromkeys(
            (ENCODER_EMBEDDING, DECODER_EMBEDDING, PROJECTION),
            find(tensors, "embedding", shared, encoder, decoder, projection),
        )
    if config.tie_word_embeddings:
        target = find(tensors, "embedding of the target", decoder, projection)
        return {
            ENCODER_EMBEDDING: find(tensors, "embedding of the source", encoder),
            DECODER_EMBEDDING: target,
            PROJECTION: target,
        }
    return {
        ENCODER_EMBEDDING: find(tensors, "embedding of the source", encoder, shared),
        DECODER_EMBEDDING: find(tensors, "embedding of the target", decoder, shared),
        PROJECTION: find(tensors, "pre-softmax projection", projection),
    }


def _generation_config(folder: str | Path) -> GenerationConfig:
    # Older folders keep beams and forbidden words among the fields of the model.
    return read_generation_config(folder) or GenerationConfig.from_pretrained(
        folder, config_file_name="config.json", _from_model_config=True
    )


def _read_ids(path: Path) -> TokenIds:
    ids = read_json(path)
    if wrong := [token for token, number in ids.items() if type(number) is not int]:
        raise ValueError(f"{path}: the id of {wrong[0]!r} is {ids[wrong[0]]!r} instead of an integer")
    missing = {"</s>", "<unk>"} - ids.keys()
    if missing:
        raise ValueError(f"{path}: has no {' and no '.join(sorted(missing))}")
    return ids


def _says_separate_vocabularies(folder: Path) -> bool:
    path = folder / "tokenizer_config.json"
    return path.is_file() and bool(read_json(path).get("separate_vocabs"))


def _language_codes(ids: TokenIds) -> list[str]:
    return [token for token in ids if token.startswith(">>") and token.endswith("<<")]
