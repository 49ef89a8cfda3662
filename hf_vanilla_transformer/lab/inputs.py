"""Sources that are not tokens, tried on tasks: series are forecast, and handwritten digits are read as words."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import PrinterCallback, Seq2SeqTrainer, Seq2SeqTrainingArguments

from ..configuration_vanilla_transformer import VanillaTransformerConfig
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from .digits import (
    FIRST_LETTER,
    LETTERS,
    READING_HEADER,
    SIDE,
    Digits,
    hold_out,
    load_digits,
    make_rows,
    nearest_neighbours,
    reading_row,
    to_labels,
    to_texts,
)
from .planning import format_table
from .series import (
    BINS,
    DAY,
    FIRST_BIN,
    expected_of_least_squares,
    expected_of_seasonal_naive,
    expected_values,
    forecast_errors,
    forecast_rows,
    least_squares,
    make_series,
    scale_of,
    seasonal_naive,
    to_tokens,
)

_SHAPE = {"d_model": 64, "num_heads": 4, "d_ff": 128, "num_encoder_layers": 2, "num_decoder_layers": 2}
# No smoothing: it moves every probability, and so the mean of a forecast, towards the middle.
FORECASTER: dict[str, Any] = {
    **_SHAPE, "vocab_size": FIRST_BIN + BINS, "source_kind": "frames", "source_width": 1, "source_stride": DAY,
    "dropout": 0.0, "label_smoothing": 0.0,
}  # fmt: skip
READER: dict[str, Any] = {
    **_SHAPE, "vocab_size": FIRST_LETTER + len(LETTERS), "source_kind": "patches", "source_width": 1,
    "source_stride": SIDE // 2, "dropout": 0.1,
}  # fmt: skip
FORECAST_STEPS, FORECAST_EXAMPLES = 3000, 40000
READING_STEPS, READING_EXAMPLES = 3000, 40000
_BATCH = 64
_LEARNING_RATE = 2e-3
# Of the data that is tested on; those that are learned from have the seed of their model.
_TEST_SEED = 1_000_003


class _Examples(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __init__(self, inputs: Mapping[str, torch.Tensor]) -> None:
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs["labels"])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: each[index] for name, each in self.inputs.items()}


def small_translator(shape: Mapping[str, Any], seed: int) -> VanillaTransformerForConditionalGeneration:
    """Makes a model of encoder and decoder.

    Args:
        shape: fields of its config.
        seed: of its weights.
    """
    torch.manual_seed(seed)
    return VanillaTransformerForConditionalGeneration(VanillaTransformerConfig(**shape))


def train_small(model: Any, inputs: Mapping[str, torch.Tensor], steps: int, seed: int, batch_size: int = _BATCH) -> Any:
    """Trains a small model by the Trainer: Adam with a rate of 2e-3 that rises and falls as a cosine.

    Args:
        model: to be trained, in place.
        inputs: arguments of the model, with `labels`, an example a row.
        steps: updates.
        seed: of order and dropout.
        batch_size: examples of an update.

    Returns:
        The model, in eval mode.
    """
    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=batch_size, learning_rate=_LEARNING_RATE, seed=seed,
            lr_scheduler_type="cosine", warmup_steps=max(1, steps // 20), adam_beta2=0.98, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = Seq2SeqTrainer(model=model, args=arguments, train_dataset=_Examples(inputs))
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return model.eval()


def forecast_table(
    seeds: Sequence[int],
    steps: int = FORECAST_STEPS,
    examples: int = FORECAST_EXAMPLES,
    test_examples: int = 1000,
    step: Callable[[], Any] = lambda: None,
) -> str:
    """Trains models that forecast one day of a series, and compares them with its noise and with simpler forecasts.

    A source is two weeks, a position of the encoder a day of it; a target is 24 tokens, bins of values scaled by what
    is known (as Ansari et al., 2024, do). A forecast is the mean of the distribution at each hour, after the most
    probable tokens of the hours before it.

    Args:
        seeds: of models and of what they learn from.
        steps: updates of each.
        examples: windows to learn from.
        test_examples: windows to be tested on, the same for all.
        step: called whenever a model was trained and tested.

    Returns:
        The table, in Markdown.
    """
    test = make_series(test_examples, _TEST_SEED)
    hours = test.known.shape[1]
    best, naive = expected_of_least_squares(hours), expected_of_seasonal_naive()
    found = [
        ("the series without its noise", "1", test.signal),
        ("least squares, told the terms of the series", f"{best:.3f}", least_squares(test.known)),
    ]
    for seed in seeds:
        learn = make_series(examples, seed)
        inputs = {"input_features": _frames(learn.known), "labels": to_tokens(learn.future, learn.known)}
        model = train_small(small_translator(FORECASTER, seed), inputs, steps, seed)
        found.append((f"this model, seed {seed}", f"{best:.3f} to {naive:.3f}", forecast(model, test.known)))
        step()
    found.append(("as a week ago (seasonal naive)", f"{naive:.3f}", seasonal_naive(test.known)))
    errors = [(name, expected, forecast_errors(each, test.future)) for name, expected, each in found]
    header, *rows = forecast_rows(errors)
    return "\n".join(format_table(header, *rows))


@torch.no_grad()
def forecast(model: Any, known: torch.Tensor, batch_size: int = 250) -> torch.Tensor:
    """Forecasts the next day.

    Args:
        model: of `FORECASTER`'s shape.
        known: (N, hours).
        batch_size: windows at a time.

    Returns:
        (N, 24).
    """
    parts = []
    for part in known.split(batch_size):
        output = model.generate(
            input_features=_frames(part).to(model.device), num_beams=1, max_new_tokens=DAY, eos_token_id=None,
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        parts.append(expected_values(torch.stack(output.logits, dim=1).cpu(), part))
    return torch.cat(parts)


def reading_table(
    seeds: Sequence[int],
    steps: int = READING_STEPS,
    examples: int = READING_EXAMPLES,
    test_examples: int = 1000,
    step: Callable[[], Any] = lambda: None,
    digits: Digits | None = None,
) -> str:
    """Trains models that read two or three handwritten digits as words, and compares them with nearest neighbours.

    A source is an image of 8 by 24 pixels in 12 patches; a target is spelled letter by letter, such as "three seven".

    Args:
        seeds: of models and of what they learn from.
        steps: updates of each.
        examples: images to learn from, put together from digits that are not tested on.
        test_examples: images to be tested on, the same for all, put together from the others.
        step: called whenever a model was trained and tested.
        digits: None for those of `load_digits`.

    Returns:
        The table, in Markdown.

    Raises:
        ValueError: scikit-learn is not installed.
    """
    digits = load_digits() if digits is None else digits
    learn, kept = hold_out(digits, len(digits) * 5 // 18)  # 499 of the 1,797
    test = make_rows(kept, test_examples, _TEST_SEED)
    neighbours = nearest_neighbours(learn, test, kept)
    rows = [reading_row("nearest neighbour, told where each digit is", neighbours, test.texts)]
    for seed in seeds:
        images = make_rows(learn, examples, seed)
        inputs = {"pixel_values": images.pixel_values, "labels": to_labels(images.texts)}
        model = train_small(small_translator(READER, seed), inputs, steps, seed)
        rows.append(reading_row(f"this model, seed {seed}", read(model, test.pixel_values), test.texts))
        step()
    return "\n".join(format_table(READING_HEADER, *rows))


@torch.no_grad()
def read(model: Any, pixel_values: torch.Tensor, batch_size: int = 250) -> list[str]:
    """Reads images of digits, greedily.

    Args:
        model: of `READER`'s shape.
        pixel_values: (N, 1, 8, 24).
        batch_size: images at a time.

    Returns:
        A text for each.
    """
    texts = []
    for part in pixel_values.split(batch_size):
        texts += to_texts(model.generate(pixel_values=part.to(model.device), num_beams=1, max_new_tokens=20))
    return texts


def _frames(known: torch.Tensor) -> torch.Tensor:
    mean, deviation = scale_of(known)
    return ((known - mean) / deviation).unsqueeze(-1)
