"""§5.1 for words rather than sentences: a vocabulary of characters, or of units that the text gives, such as phones."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from ..tokenization_ids import UNK
from ..tokenization_vanilla_transformer import UNIT_MARK
from .corpora import Corpus, TextFormat, read_corpora
from .rows import Row
from .special_tokens import special_tokens_of, wrap_backend
from .text_files import read_lines
from .tokenization import usable_paths

logger = logging.get_logger(__name__)

# What a side may be cut into, besides pieces of words ("bpe").
UNITS = ("characters", "nfd_characters", "words")

_REPLACEMENT = "\ufffd"  # what a mark in a text of units becomes, and never is in the vocabulary


def train_unit_tokenizer(
    pairs: Iterable[Mapping[str, Any]],
    *,
    source_units: str,
    target_units: str,
    vocab_size: int = 37000,
    tags: Sequence[str] = (),
    num_sentinels: int = 0,
    mask_token: bool = False,
    model_max_length: int | None = None,
) -> PreTrainedTokenizerFast:
    """Learns the symbols of source and target, each side cut in its own way, and makes one tokenizer of them.

    Letters and units do not mix: the phone `a` of a target is another symbol (`▁a`) than the letter `a` of a source.
    Decoding joins characters by nothing and units by a space, so it gives back the text, but for whitespace between
    units and symbols that are not known, which become `<unk>`. The same text gives the same tokenizer.

    Args:
        pairs: rows with `source` and, of pairs, `target`.
        source_units: "characters": each character is a token; "nfd_characters": each character of the text in NFD,
            which takes marks off letters and the syllables of Korean apart into jamo, and decoding puts them together
            (NFC); "words": whatever stands between whitespace, such as phones.
        target_units: likewise.
        vocab_size: the most tokens, special ones and tags among them. Where there are more symbols, the rarest are left
            out, and the log says how many.
        tags: tokens that may stand in front of a source, such as `<2de>`.
        num_sentinels: as for `train_tokenizer`.
        mask_token: likewise.
        model_max_length: likewise.

    Returns:
        The tokenizer: a `VanillaTransformerTokenizer`, unless any class will do.

    Raises:
        ValueError: units are unknown, a side of all pairs is blank, or `vocab_size` has no room for a symbol.
    """
    for side, units in (("source_units", source_units), ("target_units", target_units)):
        if units not in UNITS:
            raise ValueError(f"`{side}`={units!r} is not known; allowed: {', '.join(map(repr, UNITS))}")
    special_tokens = special_tokens_of(num_sentinels, tags, mask_token)
    cutters = {"source": _cutter(source_units), "target": _cutter(target_units)}
    counts: Counter[str] = Counter()
    is_blank = {"source": True}
    for row in pairs:
        for side in [side for side in cutters if side in row]:
            symbols = _symbols(cutters[side], row[side])
            is_blank[side] = is_blank.get(side, True) and not symbols
            counts.update(symbols)
    if blank := [side for side, each in is_blank.items() if each]:
        raise ValueError(f"there is nothing to learn from: every {blank[0]} is blank")
    symbols = sorted(counts, key=lambda symbol: (-counts[symbol], symbol))
    room = vocab_size - len(special_tokens)
    if room < 1:
        raise ValueError(f"`vocab_size`={vocab_size} has no room beside the {len(special_tokens)} special tokens")
    if left_out := symbols[room:]:
        rarest = sum(counts[symbol] for symbol in left_out)
        logger.warning(
            f"`vocab_size`={vocab_size} leaves {len(left_out)} of {len(symbols)} symbols out, which are {rarest} of "
            f"{counts.total()} in the text; they are read as {UNK}"
        )
    vocabulary = {str(token): number for number, token in enumerate([*special_tokens, *symbols[:room]])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    backend.normalizer, backend.pre_tokenizer = cutters["source"].normalizer, cutters["source"].pre_tokenizer
    # Takes the mark in front of the first unit away, and makes spaces of the others.
    backend.decoder = decoders.Metaspace(replacement=UNIT_MARK, prepend_scheme="always", split=False)
    backend.add_special_tokens(special_tokens)
    is_nfd = "nfd_characters" in (source_units, target_units)
    return wrap_backend(
        backend,
        special_tokens,
        model_max_length,
        target_side=None if source_units == target_units else _as_json(cutters["target"]),
        decoded_form="NFC" if is_nfd else None,
    )


def pairs_of_files(
    files: str | Path | Iterable[str | Path], same_units: bool, text_format: TextFormat
) -> Iterator[Row]:
    """Reads files for `train_unit_tokenizer`.

    Args:
        files: .tsv or .jsonl files of pairs; or plain text, of which it is not known which side it is.
        same_units: whether both sides are cut alike, so that this does not matter.
        text_format: how the rows of .jsonl and .tsv files are taken apart.

    Yields:
        Rows with `source` and, of pairs, `target`.

    Raises:
        ValueError: plain text where sides are cut differently; or as `train_tokenizer`.
        OSError: a file is not there.
    """
    for path in usable_paths(files):
        if Path(str(path).removesuffix(".gz")).suffix in (".tsv", ".jsonl"):
            yield from read_corpora([Corpus(path=str(path))], text_format)
        elif same_units:
            yield from ({"source": line} for line in read_lines(path))
        else:
            raise ValueError(
                f"{path} does not say whether it is source or target, which are cut differently; give .tsv or .jsonl"
            )


def _cutter(units: str) -> Tokenizer:
    """A backend that cuts text into units, and knows none."""
    cutter = Tokenizer(models.WordLevel({}, unk_token=UNK))
    if units == "words":
        cutter.normalizer = normalizers.Replace(UNIT_MARK, _REPLACEMENT)
        marks = pre_tokenizers.Metaspace(replacement=UNIT_MARK, prepend_scheme="always", split=False)
        cutter.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), marks])
    else:
        if units == "nfd_characters":
            cutter.normalizer = normalizers.NFD()
        cutter.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    return cutter


def _symbols(cutter: Tokenizer, text: str) -> list[str]:
    if not text.strip():
        return []
    if cutter.normalizer is not None:
        text = cutter.normalizer.normalize_str(text)
    pieces = (piece for piece, _ in cutter.pre_tokenizer.pre_tokenize_str(text))
    return [piece for piece in pieces if piece != UNIT_MARK and _REPLACEMENT not in piece]


def _as_json(cutter: Tokenizer) -> dict[str, Any]:
    state = json.loads(cutter.to_str())
    return {name: state[name] for name in ("normalizer", "pre_tokenizer")}


__all__ = ["UNITS", "pairs_of_files", "train_unit_tokenizer"]
