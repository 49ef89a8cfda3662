"""In: SentencePiece models (unigram and BPE) as fast tokenizers, whose ids another file may give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from ..tokenization_ids import SPECIAL_TOKENS
from .checkpoints import errors_name

logger = logging.get_logger(__name__)

TokenIds = Mapping[str, int]

_SPACE = "\u2581"  # how SentencePiece writes a space inside its pieces
_KINDS = ("unigram", "bpe")


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
    """Reads a SentencePiece model, by the definition of the format that comes with the library.

    Args:
        path: the file.

    Returns:
        Its pieces and rules.

    Raises:
        ImportError: sentencepiece or protobuf is not installed, or they do not go together.
        OSError: the file cannot be read.
        ValueError: it is not such a file, or has pieces or rules that a fast tokenizer cannot follow.
    """
    content, format_ = Path(path).read_bytes(), _model_format()
    try:
        proto = format_.ModelProto.FromString(content)
    except Exception as error:  # protobuf has an error of its own, of no usual class
        raise ValueError(f"{path}: not a SentencePiece model, or damaged: {error}") from error
    with errors_name(path):
        return _read(proto, format_, str(path))


def _read(proto: Any, format_: Any, path: str) -> SentencePieceModel:
    if not proto.HasField("trainer_spec") or not proto.HasField("normalizer_spec"):
        raise ValueError("not a SentencePiece model, or the end is missing: it does not say how text is cut")
    kinds = format_.ModelProto.SentencePiece
    known = {kinds.NORMAL, kinds.UNKNOWN, kinds.CONTROL, kinds.UNUSED}
    if foreign := [each.piece for each in proto.pieces if each.type not in known]:
        raise ValueError(f"{foreign[0]!r} is a user-defined or byte piece, which is not supported here")
    scores = {each.piece: each.score for each in proto.pieces if each.type == kinds.NORMAL}
    if not scores:
        raise ValueError("not a SentencePiece model: there are no pieces in it")
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    kind = format_.TrainerSpec.ModelType.Name(trainer.model_type).lower()
    if kind not in _KINDS:
        raise ValueError(f"SentencePiece model type {kind!r} is not supported; allowed: {', '.join(_KINDS)}")
    if trainer.treat_whitespace_as_suffix or not normalizer.escape_whitespaces:
        raise ValueError("spaces at the end of pieces, or not escaped, are not supported")
    return SentencePieceModel(
        path=path,
        kind=kind,
        scores=scores,
        charsmap=normalizer.precompiled_charsmap,
        add_dummy_prefix=normalizer.add_dummy_prefix,
        remove_extra_whitespaces=normalizer.remove_extra_whitespaces,
    )


def load_sentencepiece_tokenizer(path: str | Path) -> PreTrainedTokenizerFast:
    """Builds a fast tokenizer from a SentencePiece model, with the special tokens and ids of this package.

    Ids 0 to 3 are `<s>`, `<pad>`, `</s>` and `<unk>`, whatever ids the file gives them; its other pieces follow in
    their order. Text is cut as SentencePiece cuts it, and ends with `</s>`.

    Args:
        path: a `.model` or `.spm` file, unigram or BPE.

    Returns:
        The tokenizer, to be saved by `save_pretrained`.

    Raises:
        ImportError: sentencepiece or protobuf is not installed.
        OSError: the file cannot be read.
        ValueError: it is not such a file, or has pieces or rules that a fast tokenizer cannot follow.
    """
    model = read_sentencepiece(path)
    tokens = dict.fromkeys([*SPECIAL_TOKENS, *model.scores])
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), SPECIAL_TOKENS, strict=True))
    return fast_tokenizer(model, {token: number for number, token in enumerate(tokens)}, names)


def _model_format() -> Any:
    need = "reading SentencePiece models needs an extra: pip install 'hf-vanilla-transformer[sentencepiece]'"
    try:
        from sentencepiece import sentencepiece_model_pb2
    except Exception as error:  # of protobuf's own class, where it is older than what sentencepiece was made with
        raise ImportError(f"{need} ({error})") from error
    return sentencepiece_model_pb2


def fast_tokenizer(
    model: SentencePieceModel,
    ids: TokenIds,
    special_tokens: Mapping[str, str],
    other_tokens: Sequence[str] = (),
) -> PreTrainedTokenizerFast:
    """Builds a tokenizer that cuts text as a SentencePiece model does, and numbers the pieces by a vocabulary.

    Tokens of the vocabulary that are not pieces of the model are decoded, but are produced from text only if they are
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
    # Tokens that are not pieces of this model must not be found in text, so they get a spelling that no text has.
    literal |= model.scores.keys() | {token for token in ids if len(token) == 1}
    spelling = {token: token if token in literal else hidden + token for token in ids}
    if model.kind == "unigram":
        lowest = min(model.scores.values())
        by_id = sorted(ids, key=lambda token: ids[token])
        # SentencePiece scores a character that it does not know 10 below the least likely piece.
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
