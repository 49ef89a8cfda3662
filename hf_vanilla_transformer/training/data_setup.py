"""What the arguments of a run say to `data`: its corpora, tokenizer, examples and batches."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from ..data.batching import TokenBatchSampler, collate
from ..data.corpora import Corpus, TextFormat, read_corpora
from ..data.examples import Noise, TrainingExamples, example_maker, planned_lengths
from ..data.filters import Filters
from ..data.streaming import StreamOptions, TokenBatchStream
from ..data.text_files import hash_file
from ..data.tokenization import save_tokenizer, train_tokenizer
from ..data.tokenized import Cache, load_tokenized
from .arguments import VanillaTransformerTrainingArguments

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class PreparedText:
    """The text of a run, ready to be learned from.

    Args:
        tokenizer: given, or trained on the training text.
        train_set: examples, or a stream of batches.
        train_sampler: makes the batches of `train_set`; None for a stream.
        validation_set: tokenised; None where there is no validation text.
        fingerprint: what the training text is recognised by when the run is resumed; None where it is not known.
    """

    tokenizer: PreTrainedTokenizerBase
    train_set: TrainingExamples | TokenBatchStream
    train_sampler: TokenBatchSampler | None
    validation_set: Dataset | None
    fingerprint: str | None = None


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
    return training, validation


def text_format_of(args: VanillaTransformerTrainingArguments) -> TextFormat:
    """How the rows of a run's corpora are taken apart."""
    return TextFormat(args.source_lang, args.target_lang, args.objective == "span_corruption")


def prepare_text(
    args: VanillaTransformerTrainingArguments,
    training: list[Corpus],
    validation: list[Corpus],
    checkpoint: Path | None,
) -> PreparedText:
    """Gets or trains the tokenizer of a run, tokenises its text, and plans its batches.

    Args:
        args: the run.
        training: as `corpora_of` returns them.
        validation: likewise.
        checkpoint: what the run is resumed from, which has a tokenizer; None for a fresh start.

    Returns:
        Everything that training reads.

    Raises:
        ValueError: text or tokenizer are not usable; the message says which, where.
        OSError: a file cannot be read.
    """
    text_format = text_format_of(args)
    filters = Filters(args.max_length, args.max_length_ratio, args.drop_duplicates)
    cache = Cache(args.data_cache_dir, show_progress=not args.disable_tqdm)
    noise = Noise(
        bpe_dropout=args.bpe_dropout,
        span_corruption=args.objective == "span_corruption",
        noise_density=args.noise_density,
        mean_span_length=args.mean_span_length,
        seed=args.seed,
    )
    with args.main_process_first(local=False, desc="reading and tokenising text"):
        tokenizer = _tokenizer(args, training, checkpoint)
        make = example_maker(noise, tokenizer)
        train_set: TrainingExamples | TokenBatchStream
        sampler = None
        if args.streaming:
            options = StreamOptions(
                args.max_tokens, args.shuffle_buffer, args.seed, args.world_size, args.process_index
            )
            batch = partial(collate, pad_token_id=tokenizer.pad_token_id)
            train_set = TokenBatchStream(training, tokenizer, text_format, filters, options, make, batch)
        else:
            rows = load_tokenized(training, tokenizer, text_format, filters, "training set", cache)
            train_set = TrainingExamples(rows, training, make)
            sampler = _sampler(args, noise, rows, training, tokenizer)
        validation_set = None
        if validation:
            # A score should not depend on what training had no room for.
            validation_set = load_tokenized(validation, tokenizer, text_format, Filters(), "validation set", cache)
            if noise.span_corruption and make is not None:  # the same holes at every evaluation
                validation_set = validation_set.map(
                    lambda row, index: make(row, 0, index), with_indices=True, load_from_cache_file=False
                )
    return PreparedText(tokenizer, train_set, sampler, validation_set)


def _with_split(corpus: Corpus, split: str) -> Corpus:
    if corpus.dataset is None or corpus.split is not None:
        return corpus
    return Corpus(dataset=corpus.dataset, config=corpus.config, split=split, weight=corpus.weight)


def _sampler(
    args: VanillaTransformerTrainingArguments,
    noise: Noise,
    rows: Dataset,
    corpora: list[Corpus],
    tokenizer: PreTrainedTokenizerBase,
) -> TokenBatchSampler:
    sources, targets = planned_lengths(noise, rows, tokenizer)
    weights = torch.tensor([corpus.weight for corpus in corpora], dtype=torch.float64).numpy()
    return TokenBatchSampler(
        sources,
        targets,
        args.max_tokens,
        seed=args.data_seed if args.data_seed is not None else args.seed,
        weights=weights[rows.with_format("numpy")["corpus"][:]],
        num_processes=args.world_size,
        process_index=args.process_index,
        accumulation_steps=args.gradient_accumulation_steps,
    )


def _tokenizer(
    args: VanillaTransformerTrainingArguments, corpora: list[Corpus], checkpoint: Path | None
) -> PreTrainedTokenizerBase:
    given = checkpoint or args.tokenizer_name_or_path or args.model_name_or_path
    if given is None:
        # Kept by the run, so that its other processes, and itself if it is resumed, have the same.
        folder = Path(args.output_dir) / "tokenizer"
        datasets = [corpus.name for corpus in corpora if corpus.dataset is not None]
        contents = [hash_file(path) for corpus in corpora for path in corpus.files]
        key = json.dumps([args.vocab_size, args.num_sentinels, *datasets, *contents])
        stamp = folder / "made_from.txt"
        if not stamp.exists() or stamp.read_text() != key:
            texts = (
                row[side]
                for row in read_corpora(corpora, text_format_of(args))
                for side in ("source", "target")
                if side in row
            )
            tokenizer = train_tokenizer(texts=texts, vocab_size=args.vocab_size, num_sentinels=args.num_sentinels)
            save_tokenizer(tokenizer, folder)
            stamp.write_text(key)
        given = folder
    tokenizer = AutoTokenizer.from_pretrained(given, trust_remote_code=False)
    if args.new_tokens and checkpoint is None:
        added = tokenizer.add_tokens(args.new_tokens)
        logger.info(f"{added} of {len(args.new_tokens)} new_tokens were added; the others were there")
    return tokenizer
