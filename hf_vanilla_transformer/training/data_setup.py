"""What the arguments of a run say to `data`: its corpora, tokenizer, examples and batches."""

import hashlib
import json
import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..data.batching import TokenBatchSampler, collate
from ..data.corpora import Corpus, TextFormat
from ..data.examples import Noise, TrainingExamples, example_maker, planned_lengths
from ..data.filters import Filters
from ..data.fingerprints import corpus_fingerprint
from ..data.mixing import tempered_weights
from ..data.streaming import StreamOptions, TokenBatchStream, corpus_shares
from ..data.tokenized import Cache, is_tokenized, load_tokenized, without_progress_bars
from .arguments import VanillaTransformerTrainingArguments
from .objectives import LEARNERS
from .ranks import by_main_process
from .tokenizer_setup import check_tags, prepare_tokenizer

logger = logging.get_logger(__name__)

# Files of this many bytes take minutes to tokenise, which is long for processes that wait for it.
_LARGE = 500_000_000


@dataclass(frozen=True)
class PreparedText:
    """The text of a run, ready to be learned from.

    Args:
        tokenizer: given, or trained on the training text.
        train_set: examples, or a stream of batches.
        train_sampler: makes the batches of `train_set`; None for a stream.
        validation_set: tokenised; None where there is no validation text.
        fingerprint: what the training text is recognised by when the run is resumed; None where it is not known.
        validation_fingerprint: likewise of the validation text; None where there is none.
    """

    tokenizer: PreTrainedTokenizerBase
    train_set: TrainingExamples | TokenBatchStream
    train_sampler: TokenBatchSampler | None
    validation_set: Dataset | None
    fingerprint: str | None = None
    validation_fingerprint: str | None = None

    def describe(self) -> str:
        """One line for whoever prepared it: what is ready."""
        parts = [f"a tokenizer of {len(self.tokenizer):,} tokens"]
        if isinstance(self.train_set, TrainingExamples) and self.train_sampler is not None:
            batches = len(self.train_sampler) * self.train_sampler.num_processes
            kind = " of random pairs" if self.train_sampler.batching == "random" else ""
            parts.append(f"{len(self.train_set):,} training examples in {batches:,} batches{kind} an epoch")
        if self.validation_set is not None:
            parts.append(f"{len(self.validation_set):,} for validation")
        return f"Ready: {', '.join(parts)}"


def corpora_of(args: VanillaTransformerTrainingArguments) -> tuple[list[Corpus], list[Corpus]]:
    """Reads which corpora a run has, and finds out whether there are such files.

    Args:
        args: the run.

    Returns:
        Those for training, and those for validation.

    Raises:
        ValueError: there is nothing to learn from, or a corpus is not described as one.
        OSError: a file is missing.
    """
    if not args.train_data:
        raise ValueError("there is nothing to learn from; give train_data, such as source=train.en,target=train.de")
    training = [_with_split(Corpus.parse(each), "train") for each in args.train_data]
    validation = [_with_split(Corpus.parse(each), "validation") for each in args.validation_data]
    for corpus in [*training, *validation]:
        corpus.check()
        if corpus.size is not None and not (args.streaming and corpus in training):
            raise ValueError(f"{corpus.name}: size is for training text that is streamed; leave it away here")
        if corpus.weight != 1 and (corpus in validation or (args.streaming and len(training) == 1)):
            raise ValueError(
                f"{corpus.name}: weight={corpus.weight} is for training text, streamed beside other text or in memory; "
                "leave it away here"
            )
    if args.corpus_temperature != 1 and len(training) == 1:
        raise ValueError(
            f"corpus_temperature={args.corpus_temperature} is for the shares of several corpora, and there is one"
        )
    return training, validation


def text_format_of(args: VanillaTransformerTrainingArguments) -> TextFormat:
    """How the rows of a run's corpora are taken apart."""
    return TextFormat(args.source_lang, args.target_lang, args.objective != "translation")


def prepare_text(
    args: VanillaTransformerTrainingArguments,
    training: list[Corpus],
    validation: list[Corpus],
    checkpoint: Path | None,
    max_positions: int | None = None,
) -> PreparedText:
    """Gets or trains the tokenizer of a run, tokenises its text, and plans its batches.

    Whatever takes long is kept, whole or not at all: it can be interrupted and called again, and is soon done then.

    Args:
        args: the run.
        training: as `corpora_of` returns them.
        validation: likewise.
        checkpoint: what the run is resumed from, which has a tokenizer; None for a fresh start.
        max_positions: how many positions the model has learned; None where it takes any number.

    Returns:
        Everything that training reads.

    Raises:
        ValueError: text or tokenizer are not usable; the message says which, where.
        OSError: a file cannot be read.
    """
    text_format = text_format_of(args)
    extra_tokens = LEARNERS[args.objective].extra_tokens
    filters = Filters(args.max_length, args.max_length_ratio, args.drop_duplicates, max_positions, extra_tokens)
    cache = Cache(args.data_cache_dir, not args.disable_tqdm, args.preprocessing_workers)
    noise = Noise(
        bpe_dropout=args.bpe_dropout,
        objective=args.objective,
        noise_density=args.noise_density,
        mean_span_length=args.mean_span_length,
        denoising_steps=args.denoising_steps,
        seed=args.seed,
        max_positions=max_positions,
    )
    if args.process_index == 0:
        for corpus in [*training, *validation]:
            if header := corpus.header(text_format):
                logger.warning(header)
    # Text is read for these by one process, and the others are told.
    prints = by_main_process(lambda: [corpus_fingerprint(corpus) for corpus in training])
    validation_prints = by_main_process(lambda: [corpus_fingerprint(corpus) for corpus in validation])
    sizes = by_main_process(lambda: _sizes(args, training))
    shares: list[float] = []
    with args.main_process_first(local=False, desc="reading and tokenising text"):
        tokenizer = prepare_tokenizer(args, training, text_format, prints, sizes, checkpoint)
        check_tags(tokenizer, training, validation, args.bpe_dropout)
        make = example_maker(noise, tokenizer)
        train_set: TrainingExamples | TokenBatchStream
        sampler = None
        if args.streaming:
            shares = corpus_shares(training, sizes, args.corpus_temperature)
            options = StreamOptions(
                args.max_tokens,
                args.shuffle_buffer,
                _data_seed(args),
                args.world_size,
                args.process_index,
                args.batching,
            )
            train_set = TokenBatchStream(
                training,
                shares,
                tokenizer,
                text_format,
                filters,
                options,
                make,
                partial(collate, pad_token_id=tokenizer.pad_token_id),
            )
        else:
            _warn_of_long_waiting(args, training, tokenizer, text_format, cache, prints)
            rows = load_tokenized(training, tokenizer, text_format, filters, "training set", cache, prints)
            train_set = TrainingExamples(rows, training, make)
        validation_set = None
        if validation:
            # A score should not depend on what training had no room for, but on what the model has.
            only = Filters(max_positions=max_positions, extra_tokens=extra_tokens)
            validation_set = load_tokenized(
                validation, tokenizer, text_format, only, "validation set", cache, validation_prints
            )
            if args.objective != "translation" and make is not None:  # the same holes at every evaluation
                with without_progress_bars():  # in memory, and not as one more file beside the tokenised text
                    validation_set = validation_set.remove_columns("source_length").map(
                        lambda row, index: make(row, 0, index),
                        with_indices=True,
                        load_from_cache_file=False,
                        keep_in_memory=True,
                    )
    if isinstance(train_set, TrainingExamples):  # by all processes at once, none waiting for another
        sampler = _sampler(args, noise, train_set.rows, training, tokenizer)
    if args.dataloader_num_workers:
        # Otherwise `tokenizers` warns at each start of a worker that its threads do not survive a fork.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    shaped_by: list[Any] = [prints, [corpus.weight for corpus in training]]
    if len(shares) > 1:  # of a stream, which depend on a `size` that is given too
        shaped_by.append(shares)
    found = [_short_hash(shaped_by), _short_hash(validation_prints) if validation else None]
    return PreparedText(tokenizer, train_set, sampler, validation_set, *found)


def _short_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _with_split(corpus: Corpus, split: str) -> Corpus:
    return corpus if corpus.dataset is None or corpus.split is not None else replace(corpus, split=split)


def _data_seed(args: VanillaTransformerTrainingArguments) -> int:
    """The seed of the order of batches, whether they are of a stream or not."""
    return int(args.seed if args.data_seed is None else args.data_seed)


def _sizes(args: VanillaTransformerTrainingArguments, corpora: list[Corpus]) -> list[int | None]:
    """Counts sentences where it matters how many there are: where several corpora are mixed."""
    if args.streaming and len(corpora) > 1:
        return [corpus.count_sentences() for corpus in corpora]
    return [None] * len(corpora)


def _warn_of_long_waiting(
    args: VanillaTransformerTrainingArguments,
    corpora: list[Corpus],
    tokenizer: PreTrainedTokenizerBase,
    text_format: TextFormat,
    cache: Cache,
    fingerprints: list[str],
) -> None:
    if args.world_size == 1 or args.process_index:
        return
    new = [
        corpus
        for corpus, fingerprint in zip(corpora, fingerprints, strict=True)
        if not is_tokenized(fingerprint, tokenizer, text_format, cache)
    ]
    size = sum(Path(path).stat().st_size for corpus in new for path in corpus.files)
    if size > _LARGE or any(corpus.dataset is not None for corpus in new):
        logger.warning(
            f"{args.world_size} processes wait while one tokenises {', '.join(corpus.name for corpus in new)}; they "
            f"give up after ddp_timeout={args.ddp_timeout} seconds. To do it beforehand, run the same in one process "
            "with --prepare_only true"
        )


def _sampler(
    args: VanillaTransformerTrainingArguments,
    noise: Noise,
    rows: Dataset,
    corpora: list[Corpus],
    tokenizer: PreTrainedTokenizerBase,
) -> TokenBatchSampler:
    lengths = planned_lengths(noise, rows, tokenizer, args.preprocessing_workers)
    sources, targets = lengths(0) if callable(lengths) else lengths
    longest = max(sources.max(), targets.max())
    if noise.max_positions is not None and longest > noise.max_positions:
        raise ValueError(
            f"with noise_density={noise.noise_density} and mean_span_length={noise.mean_span_length}, "
            f"{noise.objective} makes {longest} tokens of a text, more than the model's {noise.max_positions} learned "
            "positions; lower noise_density or max_length"
        )
    corpus_of_row = rows.with_format("numpy")["corpus"][:]
    weights = tempered_weights(
        [corpus.weight for corpus in corpora],
        np.bincount(corpus_of_row, minlength=len(corpora)).tolist(),
        args.corpus_temperature,
    )
    if args.corpus_temperature != 1 and args.process_index == 0:
        said = ", ".join(f"{corpus.name} {weight:.3g}" for corpus, weight in zip(corpora, weights, strict=True))
        logger.warning(f"corpus_temperature={args.corpus_temperature}: times in an epoch, by corpus: {said}")
    return TokenBatchSampler(
        sources,
        targets,
        args.max_tokens,
        seed=_data_seed(args),
        weights=np.array(weights)[corpus_of_row],
        num_processes=args.world_size,
        process_index=args.process_index,
        accumulation_steps=args.gradient_accumulation_steps,
        lengths_in_epoch=lengths if callable(lengths) else None,
        batching=args.batching,
    )
