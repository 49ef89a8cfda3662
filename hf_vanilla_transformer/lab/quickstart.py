"""A minute from nothing to a translation model: tokenizer, training, held-out test, saving and reloading."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from ..inference import translate
from ..training import parse_arguments, prepare, train
from ..training.checkpoints import prepare_folder
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
        losses: the training loss (nats per token, label-smoothed) over the run.
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
    recipe: str | Path,
    output_dir: str | Path,
    train_pairs: int = 20000,
    held_out: int = 500,
    say: Callable[[str], None] = print,
) -> QuickstartResult:
    """Trains a small model to read dates, tests it on dates it has not seen, saves it, and reloads it.

    Args:
        recipe: how it is trained, but for the text and the folder: a recipe by name or file.
        output_dir: where the text, the model and its tokenizer are written.
        train_pairs: dates to learn from.
        held_out: dates to be tested on.
        say: told what happens, a line at a time.

    Returns:
        The numbers.

    Raises:
        ValueError: there are no pairs to learn from or to be tested on, or more than there are dates.
        KeyboardInterrupt: the training was stopped by a signal; `say` was told what is saved.
    """
    started = time.perf_counter()
    if train_pairs < 1 or held_out < 1:
        raise ValueError(f"train_pairs={train_pairs} and held_out={held_out}: there must be a pair at least of each")
    train_data, test_data = date_pairs(held_out, train_pairs)
    example = train_data[0]
    say(f"1. Made {len(train_data):,} training pairs, such as {example['source']!r} -> {example['target']!r}")

    text = Path(output_dir) / "dates.jsonl"
    prepare_folder(text.parent)
    rows = ({"translation": {"en": pair["source"], "iso": pair["target"]}} for pair in train_data)
    text.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    arguments = parse_arguments([str(recipe), "--output_dir", str(output_dir), "--train_data", str(text)])
    say("2. Training a tokenizer on them ...")
    run = prepare(arguments)
    tokenizer = run.text.tokenizer
    say(f"   {len(tokenizer)} tokens, {tokenizer.tokenize(example['source'])}")

    parameters = sum(weight.numel() for weight in run.model.parameters())
    say(f"3. Training {parameters:,} parameters by the recipe {recipe} ...")
    result = train(run, arguments)
    if result.interrupted_by is not None:
        updates = result.metrics["updates"]
        say(f"   Stopped after update {updates}; {output_dir}/checkpoint-{updates} has everything up to there.")
        raise KeyboardInterrupt
    model = result.model
    losses = [entry["loss"] for entry in result.history if "loss" in entry]
    say(f"   loss {losses[0]:.2f} -> {losses[-1]:.2f} nats per token, in {result.metrics['train_runtime']:.0f} s")

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
