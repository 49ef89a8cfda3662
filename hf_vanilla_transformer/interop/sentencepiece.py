"""In: SentencePiece models (unigram and BPE) as fast tokenizers, whose ids another file may give."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

logger = logging.get_logger(__name__)

TokenIds = Mapping[str, int]

_SPACE = "\u2581"  # how SentencePiece writes a space inside its pieces
_KINDS = {1: "unigram", 2: "bpe"}
_NORMAL, _UNKNOWN, _CONTROL, _UNUSED = 1, 2, 3, 5


@dataclass(frozen=True)
class SentencePieceModel:
    """What a `.spm` or `.model` file says about how to cut text.

    Args:
        path: where it was read, for messages.
        kind: "unigram" or "bpe".
        scores: of each piece that text can be cut into.
        charsmap: SentencePiece's compiled normalisation, or nothing.
        add_dummy_prefix: whether a text begins with a space.
        remove_extra_whitespaces: whether runs of spaces are one, and those at the ends none.
    """

    path: str
    kind: str
    scores: dict[str, float]
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool


def read_sentencepiece(path: str | Path) -> SentencePieceModel:
    """Reads a SentencePiece model without the library: the file is a protocol buffer of few fields.

    Args:
        path: the file.

    Returns:
        Its pieces and rules.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file, or has pieces of a kind that a fast tokenizer cannot follow.
    """
    scores: dict[str, float] = {}
    trainer: dict[int, bytes | int] = {}
    normalizer: dict[int, bytes | int] = {}
    try:
        for field, value in _fields(Path(path).read_bytes()):
            if field == 1:
                piece = dict(_fields(_message(value)))
                kind = piece.get(3, _NORMAL)
                text = _message(piece[1]).decode("utf-8")
                if kind == _NORMAL:
                    scores[text] = struct.unpack("<f", _message(piece.get(2, b"\0\0\0\0")))[0]
                elif kind not in (_UNKNOWN, _CONTROL, _UNUSED):
                    raise ValueError(f"{path}: {text!r} is a user-defined or byte piece, which is not supported here")
            elif field == 2:
                trainer = dict(_fields(_message(value)))
            elif field == 3:
                normalizer = dict(_fields(_message(value)))
    except (IndexError, KeyError, TypeError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a SentencePiece model ({error!r})") from error
    if not scores:
        raise ValueError(f"{path}: not a SentencePiece model: there are no pieces in it")
    number = trainer.get(3, 1)
    if number not in _KINDS:
        raise ValueError(f"{path}: SentencePiece model type {number!r} is not supported; allowed: {_KINDS}")
    if trainer.get(24) or not normalizer.get(5, 1):
        raise ValueError(f"{path}: spaces at the end of pieces, or not escaped, are not supported")
    return SentencePieceModel(
        path=str(path),
        kind=_KINDS[int(number)],
        scores=scores,
        charsmap=_message(normalizer.get(2, b"")),
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
    )


def fast_tokenizer(
    model: SentencePieceModel,
    ids: TokenIds,
    special_tokens: Mapping[str, str],
    other_tokens: Sequence[str] = (),
) -> PreTrainedTokenizerFast:
    """Makes a tokenizer that cuts text as a SentencePiece model does, and numbers the pieces by a vocabulary.

    Tokens of the vocabulary that are no pieces of the model are decoded, but are produced from text only if they are
    one character, which the model does not know. (Marian also looks up a run of such characters, as a whole; it then
    mostly is `<unk>`, where here each character is looked up.) Pieces that the vocabulary lacks cannot be produced
    either: SentencePiece would choose them, and they would become `<unk>`; here the text is cut into smaller pieces.
    Their number is logged.

    Args:
        model: how to cut.
        ids: the number of each token; every number from 0 up to their count once.
        special_tokens: `eos_token`, `unk_token` and others by transformers' names; all of them in `ids`.
        other_tokens: tokens to be found in the text before it is cut, such as ">>fr<<"; all in `ids`.

    Returns:
        A tokenizer that ends each text with the `eos_token`.

    Raises:
        ValueError: the ids are not consecutive, or a BPE model has pieces that the vocabulary lacks.
    """
    if sorted(ids.values()) != list(range(len(ids))):
        raise ValueError(f"{model.path}: the vocabulary's {len(ids)} ids are not the numbers from 0 to {len(ids) - 1}")
    unknown, eos = special_tokens["unk_token"], special_tokens["eos_token"]
    literal = {*special_tokens.values(), *other_tokens}
    hidden = _private_character(ids)
    lacking = [piece for piece in model.scores if piece not in ids]
    if lacking and model.kind == "bpe":
        raise ValueError(
            f"{model.path}: {len(lacking)} pieces are not in the vocabulary, such as {lacking[:5]}; "
            "merges need all of them"
        )
    if lacking:
        logger.warning(
            f"{model.path}: {len(lacking)} pieces are not in the vocabulary, such as {lacking[:5]}. "
            f"SentencePiece makes them {unknown}; here that text is cut into smaller pieces"
        )
    # What is no piece of this model must not be found in text, so it stands there in a spelling that no text has.
    literal |= model.scores.keys() | {token for token in ids if len(token) == 1}
    spelling = {token: token if token in literal else hidden + token for token in ids}
    if model.kind == "unigram":
        lowest = min(model.scores.values())
        by_id = sorted(ids, key=lambda token: ids[token])
        # SentencePiece's price of a character that it does not know is 10 below the least likely piece.
        scored = [(spelling[t], model.scores.get(t, lowest - 10 * (len(t) == 1))) for t in by_id]
        backend = Tokenizer(models.Unigram(scored, unk_id=ids[unknown]))
    else:
        vocabulary = {spelling[token]: number for token, number in ids.items()}
        backend = Tokenizer(models.BPE(vocabulary, _merges(model.scores), unk_token=unknown, fuse_unk=True))
    backend.normalizer = normalizers.Sequence(_normalizers(model, hidden))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(
        _SPACE, prepend_scheme="always" if model.add_dummy_prefix else "never", split=False
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(hidden, ""),
            decoders.Replace(_SPACE, " "),
            decoders.Fuse(),
            decoders.Strip(" ", int(model.add_dummy_prefix), 0),
        ]
    )
    backend.add_tokens([AddedToken(token, normalized=False, special=False) for token in other_tokens])
    backend.post_processor = processors.TemplateProcessing(
        single=f"$A {eos}", pair=f"$A $B {eos}", special_tokens=[(eos, ids[eos])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **special_tokens,
    )


def _normalizers(model: SentencePieceModel, hidden: str) -> list[normalizers.Normalizer]:
    steps: list[normalizers.Normalizer] = []
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    # As unknown as the character that marks hidden tokens, and not that one.
    return [*steps, normalizers.Replace(hidden, chr(ord(hidden) + 1))]


def _private_character(ids: TokenIds) -> str:
    """A character that no token has, nor its successor: both are as good as any unknown one."""
    used = {character for token in ids for character in token}
    return next(chr(code) for code in range(0xE000, 0xF8FF) if not {chr(code), chr(code + 1)} & used)


def _merges(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """All ways to make a piece of two, the highest score first: the order in which SentencePiece merges."""
    ranked = sorted((piece for piece in scores if len(piece) > 1), key=lambda piece: -scores[piece])
    return [
        (piece[:cut], piece[cut:])
        for piece in ranked
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Numbers and values of the fields of a protocol buffer message; nested messages are bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        number = shift = 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while at < len(data):
        key = varint()
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            yield number, varint()
            continue
        size = {1: 8, 5: 4}.get(wire_type) or (varint() if wire_type == 2 else -1)
        if size < 0 or at + size > len(data):
            raise IndexError(f"damaged at byte {at}")
        yield number, data[at : at + size]
        at += size


def _message(value: bytes | int) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("a number stands where a message should")
    return value
