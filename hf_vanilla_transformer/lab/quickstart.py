"""A minute from nothing to a translation model: tokenizer, training, held-out test, saving and reloading."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from ..configuration_vanilla_transformer import VanillaTransformerConfig
from ..inference import translate
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from ..training import PretrainingArguments, train, train_tokenizer
from ..training.data import tokenize_pairs
from .dates import date_pairs

UNSEEN = (
    "the third of May, nineteen ninety-nine",
    "December 24, 2031",
    "Feb 29th, 2000",
    "March the twenty-first in the year two thousand six",
)


@dataclass(frozen=True)
class QuickstartResult:
    """What the quickstart found.

    Args:
        losses: the training loss (nats a token, label-smoothed) over the run.
        exact_match: share of held-out dates that were translated without any mistake.
        held_out: how many there were.
        reload_is_equal: whether the saved and reloaded model gives bit-equal logits and the same translations.
        seconds: how long everything took.
    """

    losses: list[float]
    exact_match: float
    held_out: int
    reload_is_equal: bool
    seconds: float


def quickstart(
    output_dir: str | Path, train_pairs: int = 20000, held_out: int = 500, say: Callable[[str], None] = print
) -> QuickstartResult:
    """Trains a small model to read dates, tests it on dates it has not seen, saves it, and reloads it.

    Args:
        output_dir: where model and tokenizer are saved.
        train_pairs: dates to learn from.
        held_out: dates to be tested on.
        say: told what happens, a line at a time.

    Returns:
        The numbers.
    """
    started = time.perf_counter()
    train_data, test_data = date_pairs(held_out, train_pairs)
    example = train_data[0]
    say(f"1. Made {len(train_data):,} training pairs, such as {example['source']!r} -> {example['target']!r}")

    tokenizer = train_tokenizer(texts=(text for pair in train_data for text in pair.values()), vocab_size=400)
    say(f"2. Trained a tokenizer: {len(tokenizer)} tokens, {tokenizer.tokenize(example['source'])}")

    config = VanillaTransformerConfig.from_preset(
        "tiny", vocab_size=len(tokenizer), num_encoder_layers=2, num_decoder_layers=2, dropout=0.0
    )
    model = VanillaTransformerForConditionalGeneration(config)
    arguments = PretrainingArguments(
        output_dir=str(output_dir),
        num_train_epochs=3,
        per_device_train_batch_size=64,
        warmup_steps=200,
        learning_rate=2e-3,
        lr_scheduler_type="linear",  # ends at 0, which a run of one minute gains more from than from §5.3's long tail
        max_grad_norm=1.0,
        eval_strategy="no",
        save_strategy="no",
        logging_steps=50,
        logging_first_step=True,
        generation_num_beams=1,
    )
    say(f"3. Training {model.num_parameters():,} parameters ...")
    train_set = tokenize_pairs(Dataset.from_list(train_data), tokenizer, None, "training set")
    result = train(model, tokenizer, arguments, train_set)
    losses = [entry["loss"] for entry in result.history if "loss" in entry]
    say(f"   loss {losses[0]:.2f} -> {losses[-1]:.2f} nats a token, in {result.metrics['train_runtime']:.0f} s")

    sources, targets = [pair["source"] for pair in test_data], [pair["target"] for pair in test_data]
    translations = list(translate(model, tokenizer, sources, batch_size=100))
    exact_match = sum(map(str.__eq__, translations, targets)) / len(targets)
    say(f"4. Exact match on {len(targets)} held-out dates: {exact_match:.1%}")
    for source, translation in zip(UNSEEN, translate(model, tokenizer, UNSEEN), strict=True):
        say(f"   {source:52} -> {translation}")

    reloaded = AutoModelForSeq2SeqLM.from_pretrained(output_dir, trust_remote_code=False)
    reloaded_tokenizer = AutoTokenizer.from_pretrained(output_dir, trust_remote_code=False)
    batch = tokenizer(sources[:50], text_target=targets[:50], padding=True, return_tensors="pt")
    with torch.inference_mode():
        equal = torch.equal(model.eval()(**batch).logits, reloaded.eval()(**batch).logits)
    equal = equal and translations[:50] == list(translate(reloaded, reloaded_tokenizer, sources[:50], batch_size=50))
    say(f"5. Saved to {output_dir}, reloaded with AutoModelForSeq2SeqLM: {'equal' if equal else 'NOT EQUAL'}")
    return QuickstartResult(losses, exact_match, len(targets), equal, time.perf_counter() - started)
