"""§5.1: one vocabulary for source and target, learned from text as byte-level BPE or WordPiece."""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import logging

from ..tokenization_ids import SENTINEL, SPECIAL_TOKENS, text_to_ids
from .corpora import Corpus, TextFormat, read_corpora
from .special_tokens import special_tokens_of, wrap_backend
from .subwords import TRAINERS, TrainingText, warn_if_smaller
from .text_files import read_lines, require_text_file

logger = logging.get_logger(__name__)

# Files that are text to look at, but of which the syntax would be learned too.
_NOT_PLAIN = {".json", ".csv", ".xml", ".tmx", ".parquet", ".arrow", ".zip", ".bz2", ".xz", ".zst"}

_PAIRS = TextFormat()


def train_tokenizer(
    *,
    files: str | Path | Iterable[str | Path] | None = None,
    texts: Iterable[str] | None = None,
    vocab_size: int = 37000,
    model: str = "bpe",
    lowercase: bool = False,
    min_frequency: int = 2,
    model_max_length: int | None = None,
    num_sentinels: int = 0,
    mask_token: bool = False,
    tags: Sequence[str] = (),
    output_dir: str | Path | None = None,
    show_progress: bool = False,
    text_format: TextFormat = _PAIRS,
) -> PreTrainedTokenizerFast:
    """Learns one vocabulary from the text of both languages (§5.1), and makes a transformers tokenizer of it.

    The ids of `<s>`, `<pad>`, `</s>` and `<unk>` are 0 to 3. Every text, source or `text_target`, is encoded with
    `</s>` at its end. The same text gives the same tokenizer, byte for byte.

    `tokenizer(text)` reads control tokens from text, as is usual: `</s>` in a sentence ends it, and a tag that
    `tokenizer.add_special_tokens({"extra_special_tokens": ["<2de>"]})` or `tokenizer.add_tokens(["<2de>"])` has added
    is one token. With `split_special_tokens=True` the four, sentinels and tags of the first kind are cut into letters
    like any text. Training, translating and scoring in this package read by `text_to_ids`: `</s>` in a sentence is
    text, and a tag of either kind is one token.

    "bpe" works on UTF-8 bytes and changes nothing: what `text_to_ids` or `split_special_tokens=True` makes of a text
    without added tokens is decoded to exactly that text. "wordpiece" loses information, and cannot be decoded exactly:
    words come back with one space between them, so how much whitespace there was, and of which kind, is lost;
    punctuation marks are words, so which of them touched their neighbours is lost; and a word that has a character the
    training text has not, or more than 100 characters, becomes `<unk>`, which decoding skips.

    Args:
        files: text files, plain or gzip, read line by line. Source and target files together. Of .jsonl and .tsv
            files, both sides of each pair are read, as `text_format` says.
        texts: instead of files, strings; an iterator will do. "wordpiece", which reads them twice, holds them in
            memory.
        vocab_size: tokens to learn, with the special ones.
        model: "bpe" (byte-level) or "wordpiece".
        lowercase: whether to lower-case all text; what is decoded is then lower-case too.
        min_frequency: how often two tokens must meet in the text to become one.
        model_max_length: tokens of the longest input, for `truncation=True`. The model has no longest input, so the
            default is no limit.
        num_sentinels: special tokens `<sentinel_0>`, `<sentinel_1>` ... to add for span corruption, with the next ids
            from 4 on. They count in `vocab_size`, and `text_to_ids` makes none of any text.
        mask_token: whether to add `<mask>`, with the id 4 and before the sentinels, as `tokenizer.mask_token`: for
            masked language models and denoising. `text_to_ids` makes none of any text.
        tags: special tokens that may stand in front of a source, such as `<2de>`. They count in `vocab_size`, and the
            tokenizer is then a `VanillaTransformerTokenizer`, which can put them there by itself.
        output_dir: a folder to save the tokenizer in, for `AutoTokenizer.from_pretrained`.
        show_progress: whether to show progress bars.
        text_format: how the rows of .jsonl and .tsv files are taken apart.

    Returns:
        The tokenizer. Where the text has fewer tokens to learn than `vocab_size`, a warning says so, and the
        vocabulary is smaller.

    Raises:
        ValueError: neither or both of `files` and `texts` are given; `model` is unknown; `num_sentinels` is
            negative; text could spell a tag; `vocab_size` is too small for the alphabet; a file is empty or has only
            blank lines; or one of the errors of `read_lines`. The message names the value, or the file and line.
        TypeError: an item of `texts` is not a string.
        OSError: a file cannot be read, or `output_dir` not be written.

    Example:
        >>> tokenizer = train_tokenizer(texts=["ein Hund", "a dog"] * 9, vocab_size=270)
        >>> tokenizer.decode(tokenizer("a dog").input_ids)
        'a dog</s>'
    """
    if model not in TRAINERS:
        raise ValueError(f"`model`={model!r} is not known; allowed: {', '.join(map(repr, TRAINERS))}")
    if output_dir is not None and Path(output_dir).exists() and not Path(output_dir).is_dir():
        raise NotADirectoryError(f"`output_dir`={output_dir} is a file; give a folder, or a name that is free")
    special_tokens = special_tokens_of(num_sentinels, tags, mask_token)
    corpus = _corpus(files, texts, model, text_format)
    backend = TRAINERS[model](corpus, vocab_size, special_tokens, lowercase, min_frequency, show_progress)
    warn_if_smaller(backend, vocab_size, min_frequency)
    tokenizer = wrap_backend(backend, special_tokens, model_max_length)
    if output_dir is not None:
        save_tokenizer(tokenizer, output_dir)
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, output_dir: str | Path) -> None:
    """Saves a tokenizer so that transformers 4 can load it too, where `save_pretrained` names a class new in 5.

    Args:
        tokenizer: what to save.
        output_dir: the folder, made where there is none.
    """
    tokenizer.save_pretrained(output_dir)
    path = Path(output_dir) / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if key not in ("is_local", "local_files_only")}
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"  # an alias of the former in transformers 5
    if isinstance(config.get("extra_special_tokens"), list):
        # The name in 4, where the new one is of something else. 5 reads both.
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def sentinel_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of the special tokens `<sentinel_0>`, `<sentinel_1>` ... of a tokenizer, in this order.

    Args:
        tokenizer: any tokenizer.

    Returns:
        The ids, up to the first number that is missing; empty where there are no sentinels.
    """
    added = tokenizer.get_added_vocab()
    ids: list[int] = []
    while (sentinel := SENTINEL.format(len(ids))) in added:
        ids.append(added[sentinel])
    return ids


@dataclass(frozen=True)
class TokenizerStatistics:
    """How much text there is, and how finely a tokenizer cuts it.

    Args:
        files: how many were read.
        lines: all lines, blank ones too.
        sampled_lines: non-blank lines that the means are taken over.
        tokens_per_line: mean, without `</s>`.
        tokens_per_word: mean over the words between whitespace: the fertility.
    """

    files: int
    lines: int
    sampled_lines: int
    tokens_per_line: float
    tokens_per_word: float


def tokenizer_statistics(
    tokenizer: PreTrainedTokenizerBase,
    files: str | Path | Iterable[str | Path],
    sample_size: int = 1000,
    text_format: TextFormat = _PAIRS,
) -> TokenizerStatistics:
    """Measures a tokenizer on a random sample of lines, the same sample each time.

    Args:
        tokenizer: what to measure.
        files: as of `train_tokenizer`.
        sample_size: the most lines to measure on.
        text_format: how the rows of .jsonl and .tsv files are taken apart.

    Returns:
        The numbers.

    Raises:
        ValueError: as `train_tokenizer` for a file that is not usable.
    """
    paths = usable_paths(files)
    draw = random.Random(0)
    sample: list[tuple[str, bool]] = []
    lines = non_blank = 0
    for line, is_target in _lines(paths, text_format):
        lines += 1
        if line.strip():
            # Reservoir sampling: each non-blank line so far is in the sample with equal probability.
            non_blank += 1
            if len(sample) < sample_size:
                sample.append((line, is_target))
            elif (place := draw.randrange(non_blank)) < sample_size:
                sample[place] = (line, is_target)
    sides = ((side, [line for line, is_target in sample if is_target == side]) for side in (False, True))
    tokens = sum(len(ids) for side, texts in sides for ids in text_to_ids(tokenizer, texts, as_target=side))
    tokens -= len(sample) * tokenizer.num_special_tokens_to_add()
    words = sum(len(line.split()) for line, _ in sample)
    return TokenizerStatistics(len(paths), lines, len(sample), tokens / len(sample), tokens / words)


def _corpus(
    files: str | Path | Iterable[str | Path] | None, texts: Iterable[str] | None, model: str, text_format: TextFormat
) -> TrainingText:
    if (files is None) == (texts is None):
        raise ValueError("give the training text either as `files` or as `texts`, and not both")
    if files is not None:
        paths = usable_paths(files)
        return lambda: (line for line, _ in _lines(paths, text_format))
    assert texts is not None
    if isinstance(texts, str):
        raise TypeError("`texts` is one string; give a list or an iterator of strings")
    # Only WordPiece reads its text twice, and an iterator can be read once.
    return partial(checked_strings, list(texts) if model == "wordpiece" else texts)


def usable_paths(files: str | Path | Iterable[str | Path]) -> list[Path]:
    """Refuses files that a tokenizer cannot be trained on, before the first is read.

    Args:
        files: one or several.

    Returns:
        Their paths.

    Raises:
        ValueError: there is none, or one is not text in lines; the message names it.
        OSError: one is not there.
    """
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(path) for path in files]
    if not paths:
        raise ValueError("`files` has no file in it")
    for path in paths:  # all of them before the first is read, which may take long
        require_text_file(path)
        if not path.is_file():
            raise ValueError(f"{path}: not a regular file; it is read more than once, which a pipe cannot be")
        if _suffix(path) in _NOT_PLAIN:
            raise ValueError(f"{path}: neither plain text, one sentence a line, nor .jsonl or .tsv; convert it to one")
    return paths


def _suffix(path: Path) -> str:
    return Path(str(path).removesuffix(".gz")).suffix


def _texts(path: Path, text_format: TextFormat) -> Iterator[tuple[str, bool]]:
    """Texts, and whether each is a target."""
    if _suffix(path) not in (".jsonl", ".tsv"):
        yield from ((line, False) for line in read_lines(path))
        return
    for row in read_corpora([Corpus(path=str(path))], text_format):
        yield from ((row[side], side == "target") for side in ("source", "target") if side in row)


def _lines(paths: list[Path], text_format: TextFormat) -> Iterator[tuple[str, bool]]:
    for path in paths:
        count, has_text = 0, False
        for line, is_target in _texts(path, text_format):
            count += 1
            has_text = has_text or bool(line.strip())
            yield line, is_target
        if not has_text:
            raise ValueError(f"{path}: all of its {count} lines are blank" if count else f"{path}: the file is empty")


def checked_strings(texts: Iterable[str]) -> Iterator[str]:
    """Yields texts to learn from, and makes sure that they are texts.

    Args:
        texts: strings.

    Yields:
        The same.

    Raises:
        TypeError: one is not a string; the message says which.
        ValueError: one is not valid Unicode, or all are blank.
    """
    count, has_text = 0, False
    for count, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise TypeError(f"`texts`, item {count}: expected a string, got {type(text).__name__}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"`texts`, item {count}: a lone surrogate, which is no character, at position {error.start}"
            ) from error
        has_text = has_text or bool(text.strip())
        yield text
    if not has_text:
        raise ValueError(f"`texts` has nothing to learn from: {count} strings, none with a visible character")


__all__ = [
    "SPECIAL_TOKENS",
    "TokenizerStatistics",
    "checked_strings",
    "save_tokenizer",
    "sentinel_ids",
    "tokenizer_statistics",
    "train_tokenizer",
    "usable_paths",
]
