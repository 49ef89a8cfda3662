"""What a new translation model begins with besides chance: the encoder of one trained model, the decoder of another."""

from dataclasses import fields
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, PreTrainedTokenizerBase
from transformers.utils import logging

from ..configuration_decoder_only import VanillaTransformerDecoderConfig
from ..configuration_encoder_only import VanillaTransformerEncoderConfig
from ..configuration_vanilla_transformer import TRAINING_RATES, VanillaTransformerConfig
from ..inference import load_config, load_model, load_tokenizer

logger = logging.get_logger(__name__)

# Fields that may differ: what is dropped in training, what other parts are like, and ids, of which the tokenizers say
# what they mean.
_FREE = {
    *(*TRAINING_RATES, "use_cache"),
    *("is_encoder_decoder", "num_encoder_layers", "num_decoder_layers", "final_logits_bias", "vocab_size"),
    *("bos_token_id", "pad_token_id", "eos_token_id", "decoder_start_token_id", "tie_word_embeddings"),
}
_SHAPE = [
    each.name
    for each in fields(VanillaTransformerConfig)
    if each.name in VanillaTransformerConfig.__annotations__ and each.name not in _FREE
]
_OF_FEATURES = ("feature_map", "num_random_features", "feature_seed")
_ENCODER, _DECODER, _HEAD = "model.encoder.", "model.decoder.", "lm_head."


def take_over_weights(
    model: Any, tokenizer: PreTrainedTokenizerBase, encoder_from: str | None, decoder_from: str | None
) -> None:
    """Gives a new model the encoder of a trained one, the decoder of another, or both, and says what stays new.

    A masked language model has an encoder; a causal or prefix language model a decoder without attention to an encoder,
    which then stays new; translation and denoising models have both. With the decoder comes the pre-softmax projection.
    Where all embeddings are one matrix (§3.4), that of the decoder is taken if there is one, and else the encoder's.

    Args:
        model: a new `VanillaTransformerForConditionalGeneration`; changed in place.
        tokenizer: of the run.
        encoder_from: folder of a trained model; None leaves the encoder new.
        decoder_from: likewise for the decoder.

    Raises:
        ValueError: a model has no such part, its tokenizer or shape is another, or its matrices cannot become one; the
            message names the option, and the field.
        OSError: there is no such model.
    """
    if encoder_from is None and decoder_from is None:
        return
    own = model.state_dict()
    taken: dict[str, torch.Tensor] = {}
    for option, folder, part in (
        ("init_encoder_from", encoder_from, _ENCODER),
        ("init_decoder_from", decoder_from, _DECODER),
    ):
        if folder is not None:
            found = _part(f"{option}={folder}", folder, part, model.config, tokenizer)
            taken |= found
            _say(f"{option}={folder}", found, own, part)
    embeddings = [name for name in taken if name.endswith("embed_tokens.weight") or name == f"{_HEAD}weight"]
    if model.config.tie_word_embeddings:
        last = taken[embeddings[-1]]  # of the decoder, where there is one
        if decoder_from is not None and not torch.equal(
            taken[f"{_HEAD}weight"], taken[f"{_DECODER}embed_tokens.weight"]
        ):
            raise ValueError(
                f"init_decoder_from={decoder_from} has an embedding and a projection of its own, and the new model has "
                "one matrix for both; give config_overrides tie_word_embeddings=false"
            )
        if encoder_from is not None and not torch.equal(taken[f"{_ENCODER}embed_tokens.weight"], last):
            logger.warning(
                f"the embedding of init_encoder_from={encoder_from} is not taken: the new model has one matrix for "
                "both embeddings and the projection, which is that of the decoder; config_overrides "
                "tie_word_embeddings=false keeps both"
            )
        for name in embeddings:
            taken[name] = last
    with torch.no_grad():
        for name, weight in taken.items():
            own[name].copy_(weight)


def _part(
    said: str, folder: str, part: str, config: VanillaTransformerConfig, tokenizer: PreTrainedTokenizerBase
) -> dict[str, torch.Tensor]:
    """The weights of an encoder or decoder, by their names in a translation model."""
    theirs = load_config(folder, None)
    lacking = VanillaTransformerDecoderConfig if part == _ENCODER else VanillaTransformerEncoderConfig
    if not isinstance(theirs, VanillaTransformerConfig) or isinstance(theirs, lacking):
        what = "encoder" if part == _ENCODER else "decoder"
        raise ValueError(f"{said} is a {theirs.model_type} model, which has no {what} of this package")
    layers = "num_encoder_layers" if part == _ENCODER else "num_decoder_layers"
    has_no_cross_attention = part == _ENCODER or not theirs.is_encoder_decoder
    ignored = {"cross_attention"} if has_no_cross_attention else set()
    if has_no_cross_attention and config.attention == "softmax":
        ignored |= set(_OF_FEATURES)
    shape = [name for name in _SHAPE if name not in ignored]
    compared = [*shape, layers, *(["final_logits_bias"] if part == _DECODER else [])]
    differing = [
        f"{name} is {getattr(theirs, name)!r} there, and {getattr(config, name)!r} here"
        for name in compared
        if getattr(theirs, name) != getattr(config, name)
    ]
    if getattr(theirs, "type_vocab_size", 0):
        differing.append(
            f"type_vocab_size is {theirs.type_vocab_size} there, and a translation model has no such types"
        )
    if differing:
        raise ValueError(f"{said} has another shape: {'; '.join(differing)}. Give these by preset and config_overrides")
    if load_tokenizer(folder).get_vocab() != tokenizer.get_vocab() or theirs.vocab_size != config.vocab_size:
        raise ValueError(
            f"{said} was trained with another vocabulary than that of the run; leave tokenizer_name_or_path and "
            "new_tokens out, and train both models with one tokenizer"
        )
    auto_class: Any = AutoModelForSeq2SeqLM
    if not theirs.is_encoder_decoder:
        auto_class = AutoModelForMaskedLM if part == _ENCODER else AutoModelForCausalLM
    weights = load_model(folder, "float32", auto_class).state_dict()
    if isinstance(theirs, VanillaTransformerDecoderConfig):
        weights = {name.replace("model.", _DECODER, 1): weight for name, weight in weights.items()}
    wanted = (part,) if part == _ENCODER else (part, _HEAD)
    return {name: weight for name, weight in weights.items() if name.startswith(wanted)}


def _say(said: str, found: dict[str, torch.Tensor], own: dict[str, torch.Tensor], part: str) -> None:
    new = [name for name in own if name.startswith(part) and name not in found]
    line = f"{said}: {len(found)} weights taken, {_count(found):,} numbers"
    if new:
        count = _count({name: own[name] for name in new})
        line += f"; {len(new)} of its part stay new, {count:,} numbers, such as {new[0]}"
    logger.warning(line)


def _count(weights: dict[str, torch.Tensor]) -> int:
    """Numbers of weights, a shared matrix counted once."""
    return sum({weight.data_ptr(): weight.numel() for weight in weights.values()}.values())


__all__ = ["take_over_weights"]
