"""The tokenizer of a run: given, that of its model or checkpoint, or trained on its text; checked before it is used."""

import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import logging

from ..data.added_tokens import add_tokens_to
from ..data.corpora import Corpus, Share, TextFormat, read_corpora
from ..data.lowercase_bpe import train_lowercase_bpe
from ..data.rows import Row
from ..data.streaming import corpus_shares
from ..data.tokenization import save_tokenizer, train_tokenizer
from ..data.unit_tokenizer import train_unit_tokenizer
from ..inference import load_tokenizer
from ..tokenization_ids import text_to_ids
from ..tokenization_tags import known_tag_tokens, tag_tokens
from .arguments import VanillaTransformerTrainingArguments
from .objectives import WITH_MASK

logger = logging.get_logger(__name__)

# Of a stream, a vocabulary is learned from its first sentences; more would change it little.
_STREAMED_SENTENCES = 1_000_000
# What the folder of a run has while its tokenizer is written: a folder of such a name, in which `tokenizer` is.
_UNFINISHED = "tokenizer-"
# Part of what a tokenizer is found again by; a new number makes older ones unknown.
_VERSION = 3


def prepare_tokenizer(
    args: VanillaTransformerTrainingArguments,
    corpora: Sequence[Corpus],
    text_format: TextFormat,
    fingerprints: Sequence[str],
    sizes: Sequence[int | None],
    checkpoint: Path | None,
) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a run, or trains it, or finds the one that this run has trained before.

    Args:
        args: the run.
        corpora: what it learns from.
        text_format: how their rows are taken apart.
        fingerprints: `corpus_fingerprint` of each.
        sizes: sentences of each; None where it is not known.
        checkpoint: what the run is resumed from, which has a tokenizer; None for a fresh start.

    Returns:
        The tokenizer, with `new_tokens`.

    Raises:
        ValueError: it is not usable for this; the message says why, and what to do.
        OSError: there is none of that name.
    """
    given = checkpoint or args.tokenizer_name_or_path or args.model_name_or_path
    given = given or args.init_encoder_from or args.init_decoder_from or next(iter(args.distill_from), None)
    if given is None:
        given = _trained_tokenizer(args, corpora, text_format, fingerprints, sizes)
    if Path(given).is_file():
        raise ValueError(
            f"tokenizer_name_or_path={given} is a file; a tokenizer is a folder with tokenizer.json. From a model of "
            f"SentencePiece: vanilla-transformer convert sentencepiece {given} --output_dir DIR"
        )
    tokenizer = load_tokenizer(given)
    check_tokenizer(tokenizer, str(given), new_model=checkpoint is None and args.model_name_or_path is None)
    if checkpoint is None and args.tokenizer_name_or_path and args.model_name_or_path:
        _require_the_vocabulary_of_the_model(tokenizer, args.tokenizer_name_or_path, args.model_name_or_path)
    if checkpoint is not None:
        if args.tokenizer_name_or_path:
            named = load_tokenizer(args.tokenizer_name_or_path)
            add_tokens_to(named, args.new_tokens, tags_of(corpora))
            _require_the_vocabulary_of_the_checkpoint(named, args, tokenizer, checkpoint)
    elif args.new_tokens:
        added = add_tokens_to(tokenizer, args.new_tokens, tags_of(corpora))
        logger.info(f"{added} of {len(args.new_tokens)} new_tokens were added; the others were there")
    return tokenizer


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str, new_model: bool) -> None:
    """Refuses a tokenizer with which a model would learn something else than translating.

    Args:
        tokenizer: any.
        name: what to call it in messages.
        new_model: whether the model takes from it which token begins a translation.

    Raises:
        ValueError: it has no padding, or no token for end or beginning; it does not end texts; or it cuts them at
            random. The message says which, and what to set.
    """
    load = f"tokenizer = AutoTokenizer.from_pretrained({name!r})"
    needed = {"eos_token": "which ends every text", "pad_token": "which fills up short texts"}
    if new_model:
        needed["bos_token"] = "which begins every translation"
    missing = [token for token in needed if getattr(tokenizer, f"{token}_id") is None]
    if missing:
        cls, sep = getattr(tokenizer, "cls_token", None), getattr(tokenizer, "sep_token", None)
        usual = {"eos_token": sep or "</s>", "bos_token": cls or tokenizer.pad_token or "<s>", "pad_token": "<pad>"}
        settings = ", ".join(f"{token}={usual[token]!r}" for token in missing)
        why = " and ".join(f"no {token}, {needed[token]}" for token in missing)
        raise ValueError(
            f"the tokenizer {name} has {why}. Set what is missing and save it: "
            f"AutoTokenizer.from_pretrained({name!r}, {settings}).save_pretrained(DIR)"
        )
    for as_target in (False, True):
        ids = text_to_ids(tokenizer, ["a b"], as_target)[0]
        if not ids or ids[-1] != tokenizer.eos_token_id:
            last = f"with {tokenizer.convert_ids_to_tokens(ids[-1])!r}" if ids else "with nothing"
            eos = tokenizer.eos_token
            raise ValueError(
                f"the tokenizer {name} ends {'targets' if as_target else 'texts'} {last} and not with its eos_token "
                f"{eos!r}: a model would never learn to stop. Set and save it: {load}; "
                "tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing("
                f'single="$A {eos}", special_tokens=[({eos!r}, {tokenizer.eos_token_id})]); '
                "tokenizer.save_pretrained(DIR)"
            )
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
        if model.get("dropout"):
            raise ValueError(
                f"the tokenizer {name} leaves out merges at random (dropout={model['dropout']}), and text is tokenised "
                "once; set tokenizer.backend_tokenizer.model.dropout = None, and bpe_dropout for the run"
            )


def _require_the_vocabulary_of_the_model(tokenizer: PreTrainedTokenizerBase, name: str, model: str) -> None:
    """Refuses ids that mean other pieces than those the model has learned."""
    try:
        own = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError):
        return  # a model without a tokenizer says nothing of what its ids mean
    theirs, ours = tokenizer.get_vocab(), own.get_vocab()
    differing = sorted((piece for piece in ours if theirs.get(piece) != ours[piece]), key=ours.__getitem__)
    if differing:
        raise ValueError(
            f"tokenizer_name_or_path={name} has another vocabulary than model_name_or_path={model}: {len(differing)} "
            f"pieces of the model have another id or none, such as {_with_ids(differing[:5], ours, theirs)}. Leave "
            "tokenizer_name_or_path away; new_tokens adds tokens"
        )


def _require_the_vocabulary_of_the_checkpoint(
    named: PreTrainedTokenizerBase,
    args: VanillaTransformerTrainingArguments,
    own: PreTrainedTokenizerBase,
    checkpoint: Path,
) -> None:
    """Refuses a tokenizer that would be named in vain: a resumed run goes on with that of its checkpoint."""
    theirs, ours = named.get_vocab(), own.get_vocab()
    differing = sorted(piece for piece in theirs.keys() | ours.keys() if theirs.get(piece) != ours.get(piece))
    if differing:
        added = f" with new_tokens={' '.join(args.new_tokens)}" if args.new_tokens else ""
        raise ValueError(
            f"tokenizer_name_or_path={args.tokenizer_name_or_path}{added} has another vocabulary than {checkpoint}, "
            f"from which the run is resumed: {len(differing)} pieces have another id or none, such as "
            f"{_with_ids(differing[:5], ours, theirs)}. Leave tokenizer_name_or_path away or name the former "
            "tokenizer; or start a new run in another output_dir"
        )


def _with_ids(pieces: Sequence[str], ours: Mapping[str, int], theirs: Mapping[str, int]) -> str:
    """Names pieces, each with its id in two vocabularies."""
    return ", ".join(f"{piece!r} ({ours.get(piece, 'missing')}, {theirs.get(piece, 'missing')})" for piece in pieces)


def _trained_tokenizer(
    args: VanillaTransformerTrainingArguments,
    corpora: Sequence[Corpus],
    text_format: TextFormat,
    fingerprints: Sequence[str],
    sizes: Sequence[int | None],
) -> Path:
    """Trains a tokenizer, unless this run has: it is kept for its other processes, and for when it is resumed."""
    folder = Path(args.output_dir) / "tokenizer"
    if args.process_index == 0:
        _remove_unfinished(folder.parent)
    shares = corpus_shares(corpora, sizes, args.corpus_temperature) if args.streaming else None
    has_mask = args.objective in WITH_MASK
    settings = [
        args.vocab_size,
        args.num_sentinels,
        args.source_units,
        args.target_units,
        *(["mask"] if has_mask else []),
    ]
    key = json.dumps([_VERSION, *settings, vars(text_format), [*fingerprints], shares])
    stamp = folder / "made_from.txt"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == key:
        return folder
    if shares is None:
        counted = [corpus.count_sentences() for corpus in corpora]
        known = [count for count in counted if count is not None]
        whole = len(known) == len(corpora)
        lines = f"{sum(known):,} lines" if whole else ", ".join(corpus.name for corpus in corpora)
    else:
        lines = f"the first {_STREAMED_SENTENCES:,} sentences of the stream, or all"
    show_progress = sys.stderr.isatty() and not args.disable_tqdm  # elsewhere the bars come out as empty lines
    logger.warning(f"training a tokenizer of {args.vocab_size:,} tokens on {lines}")
    counts = [0] * len(corpora)
    rows = _rows(corpora, text_format, shares, counts)
    options: dict[str, Any] = {
        "vocab_size": args.vocab_size,
        "num_sentinels": args.num_sentinels,
        "mask_token": has_mask,
        "tags": tags_of(corpora),
    }
    if args.source_units == "bpe":
        texts = (row[side] for row in rows for side in ("source", "target") if side in row)
        tokenizer = train_tokenizer(texts=texts, show_progress=show_progress, **options)
    elif args.source_units == "lowercase_bpe":
        tokenizer = train_lowercase_bpe(rows, show_progress=show_progress, **options)
    else:
        units = (args.source_units, args.target_units)
        tokenizer = train_unit_tokenizer(rows, source_units=units[0], target_units=units[1], **options)
    if shares is not None:
        logger.warning(f"the tokenizer was trained on the first {sum(counts):,} sentences of the stream")
    # Whole or not at all: written beside it, then renamed.
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=_UNFINISHED) as scratch:
        written = Path(scratch) / "tokenizer"
        save_tokenizer(tokenizer, written)
        (written / stamp.name).write_text(key, encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.rename(written, folder)
    return folder


def _remove_unfinished(output_dir: Path) -> None:
    """Removes what earlier starts of the run left where they were killed while they wrote a tokenizer."""
    for scratch in output_dir.glob(f"{_UNFINISHED}{'?' * 8}"):  # as `tempfile` names them
        if scratch.is_dir() and {path.name for path in scratch.iterdir()} <= {"tokenizer"}:
            shutil.rmtree(scratch)


def tags_of(corpora: Sequence[Corpus]) -> list[str]:
    """Returns the tags that stand in front of the sources of corpora, each once, in their order."""
    tags = [tag for corpus in corpora if corpus.tag is not None for tag in tag_tokens(corpus.tag)]
    return list(dict.fromkeys(tags))


def check_tags(
    tokenizer: PreTrainedTokenizerBase,
    training: Sequence[Corpus],
    validation: Sequence[Corpus],
    bpe_dropout: float = 0.0,
) -> None:
    """Refuses corpora whose sources would not be read as they are meant.

    Args:
        tokenizer: of the run.
        training: what is learned from.
        validation: what is translated for scores.
        bpe_dropout: of the run.

    Raises:
        ValueError: the tokenizer does not have a tag of theirs, or puts one there by itself; or it cuts source and
            target differently, and text for validation is reversed, or text that BPE-dropout cuts.
    """
    for corpus in [*training, *validation]:
        try:
            known_tag_tokens(tokenizer, corpus.tag)
        except ValueError as error:
            raise ValueError(f"{corpus.name}, tag={corpus.tag}: {error}") from error
        if (prefix := getattr(tokenizer, "prefix", [])) and (corpus.tag is not None or corpus.reversed):
            raise ValueError(
                f"{corpus.name}: the tokenizer puts {' '.join(prefix)} in front of every source by itself; leave tag "
                "and reversed away, or save it with src_lang, tgt_lang and tag None"
            )
    if getattr(tokenizer, "target_side", None) is not None:
        for corpus in training:
            if corpus.reversed and bpe_dropout:
                raise ValueError(
                    f"{corpus.name}: bpe_dropout={bpe_dropout} would cut reversed text as the side it is not, with "
                    "a tokenizer that cuts source and target differently; leave out one of the two"
                )
        for corpus in validation:
            if corpus.reversed:
                raise ValueError(
                    f"{corpus.name}: reversed text of a tokenizer that cuts source and target differently can be "
                    "learned from, but not translated; leave it out of validation_data"
                )


def _rows(
    corpora: Sequence[Corpus], text_format: TextFormat, shares: list[float] | None, counts: list[int]
) -> Iterator[Row]:
    """All text that a tokenizer is trained on; of a stream, its beginning. Counts sentences on."""
    for number, given in enumerate(corpora):
        corpus = replace(given, tag=None, reversed=False)
        rows = read_corpora([corpus], text_format, None if shares is None else Share())
        if shares is not None:
            rows = islice(rows, math.ceil(_STREAMED_SENTENCES * shares[number]))
        has_text = False
        for row in rows:
            counts[number] += 1
            has_text = has_text or any(row[side].strip() for side in ("source", "target") if side in row)
            yield row
        if not has_text:
            what = f"all of its {counts[number]} sentences are blank" if counts[number] else "it is empty"
            raise ValueError(f"nothing to learn from in {corpus.name}: {what}")


__all__ = ["check_tags", "check_tokenizer", "prepare_tokenizer", "tags_of"]
