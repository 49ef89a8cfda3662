"""What each head of a model attends to while it translates a sentence, with the tokens as people can read them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ..attention import MultiHeadAttention
from ..tokenization_ids import text_to_ids
from ..translation_batches import refuse_training_mode
from ..translation_pieces import max_source_length, source_pieces
from ..translation_scoring import alignment_attention, shift_right
from .heads import KINDS

_BYTES = {character: byte for byte, character in bytes_to_unicode().items()}


@dataclass(frozen=True)
class AttentionMaps:
    """The attention weights of one sentence and its translation, of N layers with H heads on each side.

    Args:
        sentence: the source as text.
        translation: the target as text.
        source: the S tokens of the source, as `token_labels` writes them; the last is usually `</s>`.
        read: the T tokens that the decoder reads; the first starts the translation (`<s>`).
        predicted: the T tokens that it predicts from them, one further: the translation with `</s>`.
        weights: by kind, the names of `KINDS`: "encoder" (N, H, S, S), "decoder" (N, H, T, T), and "cross"
            (N, H, T, S), in float32; the last axis sums to 1.
    """

    sentence: str
    translation: str
    source: tuple[str, ...]
    read: tuple[str, ...]
    predicted: tuple[str, ...]
    weights: dict[str, torch.Tensor]

    def axes(self, kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Returns the tokens of the rows, which attend, and of the columns, which are attended to.

        A row of the decoder is named by the token that it predicts.

        Args:
            kind: of `KINDS`.
        """
        columns = self.read if kind == "decoder" else self.source
        return (self.source if kind == "encoder" else self.predicted), columns

    def may_attend(self, kind: str) -> torch.Tensor:
        """Returns a mask (rows, columns), False where the model cannot attend: at later positions of the decoder.

        Args:
            kind: of `KINDS`.
        """
        rows, columns = self.axes(kind)
        mask = torch.ones(len(rows), len(columns), dtype=torch.bool)
        return mask.tril() if kind == "decoder" else mask

    def alignment(self, layer: int | None = None) -> torch.Tensor:
        """The soft alignment: the mean of the cross-attention over the heads of a layer.

        Args:
            layer: from 1; None for the one that `translate --alignments` uses, the second-to-last.

        Returns:
            (T, S); rows sum to 1.

        Raises:
            ValueError: there is no such layer.
        """
        layers = self.weights["cross"]
        if layer is None:
            return alignment_attention(list(layers.unsqueeze(1)))[0]
        if not 1 <= layer <= len(layers):
            raise ValueError(f"there is no decoder layer {layer}; this model has layers 1 to {len(layers)}")
        return alignment_attention([layers[layer - 1].unsqueeze(0)])[0]


def attention_maps(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentence: str,
    target: str | Sequence[int] | None = None,
    tag: str | None = None,
    **generation_options: Any,
) -> AttentionMaps:
    """Translates a sentence, and records the attention of every head in one pass over source and translation.

    Args:
        model: a sequence-to-sequence model in eval mode; one of this package returns attention by itself, others need
            `attn_implementation="eager"`.
        tokenizer: its tokenizer.
        sentence: the source.
        target: a translation to look at in place of the model's own: as text, or as the ids of its tokens without
            the start token.
        tag: what to put in front of the sentence, such as "2de" for the token `<2de>`.
        **generation_options: for `model.generate()`, such as `num_beams`.

    Returns:
        The weights and the tokens.

    Raises:
        TypeError: the sentence is not a string.
        ValueError: the model is in training mode or returns no attention; the sentence is blank or needs more positions
            than the model has learned; there is no such tag; or options for `generate()` were given with a target.
    """
    refuse_training_mode(model)
    if target is not None and generation_options:
        raise ValueError(f"{', '.join(generation_options)} cannot be used with a given target: nothing is searched")
    input_ids = torch.tensor([whole_source(model, tokenizer, sentence, tag)], device=model.device)  # (1, S)
    attention_mask = torch.ones_like(input_ids)
    with torch.no_grad():
        if target is None:
            options = {**generation_options, "num_return_sequences": 1}
            found = model.generate(input_ids=input_ids, attention_mask=attention_mask, **options)
            sequence = getattr(found, "sequences", found)  # a config may request a dict
            decoder_input_ids, labels = sequence[:, :-1], sequence[:, 1:]
        else:
            ids = text_to_ids(tokenizer, [target], as_target=True) if isinstance(target, str) else [list(target)]
            labels = torch.tensor(ids, device=model.device)
            decoder_input_ids = shift_right(model, labels)
        outputs = model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            use_cache=False,
            output_attentions=True,
            return_dict=True,
        )
    recorded = {
        "encoder": outputs.encoder_attentions,
        "decoder": outputs.decoder_attentions,
        "cross": outputs.cross_attentions,
    }
    for kind, layers in recorded.items():
        if not layers:
            raise ValueError(
                f"a {type(model).__name__} returned no {KINDS[kind]}; load it with attn_implementation='eager', or "
                "call model.set_attn_implementation('eager')"
            )
    source, read, predicted = (
        tuple(token_labels(tokenizer, ids[0].tolist())) for ids in (input_ids, decoder_input_ids, labels)
    )
    weights = {kind: torch.cat(list(layers)).float().cpu() for kind, layers in recorded.items()}
    decoded = tokenizer.decode(labels[0].tolist(), skip_special_tokens=True)
    translation = target if isinstance(target, str) else str(decoded)
    return AttentionMaps(sentence, translation, source, read, predicted, weights)


def whole_source(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentence: str, tag: str | None = None
) -> list[int]:
    """Tokenises a source that is looked at as a whole.

    Args:
        model: what will read it.
        tokenizer: its tokenizer.
        sentence: the source.
        tag: as in `attention_maps`.

    Returns:
        The ids of its tokens, `</s>` included.

    Raises:
        TypeError: the sentence is not a string.
        ValueError: it is blank or needs more positions than the model has learned; or there is no such tag.
    """
    (pieces,) = source_pieces(tokenizer, [sentence], max_source_length(model), tag)
    if len(pieces) != 1:
        wrong = "is longer than the model has positions; give a part of it" if pieces else "has no visible character"
        raise ValueError(f"the sentence {sentence!r:.80} {wrong}")
    return pieces[0]


@contextmanager
def recorded_masks(model: PreTrainedModel) -> Iterator[dict[str, torch.Tensor]]:
    """Records which keys the model lets its first layers attend to, for each kind of attention, while it runs.

    Args:
        model: of this package. Call it with `output_attentions=True`: other implementations may do without a mask.

    Yields:
        A dict that the calls in the block fill: kind to a mask (B, rows, columns), True where a query may attend.
    """
    encoder, decoder = model.get_encoder().layers[0], model.get_decoder().layers[0]
    places: dict[str, MultiHeadAttention] = {
        "encoder": encoder.self_attention,
        "decoder": decoder.self_attention,
        "cross": decoder.cross_attention,
    }
    masks: dict[str, torch.Tensor] = {}

    def recorder(kind: str) -> Any:
        def record(module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
            added = arguments[1][:, 0]  # to the scores of all heads: a bias, or the lowest number where masked
            masks[kind] = added > torch.finfo(added.dtype).min / 2

        return record

    handles = [module.register_forward_pre_hook(recorder(kind)) for kind, module in places.items()]
    try:
        yield masks
    finally:
        for handle in handles:
            handle.remove()


def token_labels(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    r"""Writes tokens so that a person can read them and tell them apart.

    Args:
        tokenizer: any.
        ids: of the tokens.

    Returns:
        The text of each token, with `·` for a space (or `▁`, which some tokenizers have in its place); `\n` and the
        like for what cannot be seen, and `\xf0\x9f` for bytes that are only a part of a character. An id that the
        tokenizer does not know, because the model has more, is written `<300>`.
    """
    known = tokenizer.convert_ids_to_tokens(list(ids))
    tokens = [f"<{number}>" if token is None else token for number, token in zip(ids, known, strict=True)]
    if _is_byte_level(tokenizer):
        added = tokenizer.get_added_vocab()
        tokens = [
            token if each is None or each in added else _text_of_bytes(each)
            for token, each in zip(tokens, known, strict=True)
        ]
    return ["".join(map(_visible, token)) for token in tokens]


def _is_byte_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    return decoder is not None and decoder.decode(["Ġa"]) == " a"


def _text_of_bytes(token: str) -> str:
    return bytes(_BYTES[character] for character in token).decode("utf-8", errors="backslashreplace")


def _visible(character: str) -> str:
    if character in " ▁":
        return "·"
    return character if character.isprintable() else character.encode("unicode_escape").decode()
