"""Speed of a trained checkpoint on real sentences, by each engine, next to MarianMTModel of the same size."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, MarianMTModel, PreTrainedConfig

from ..configuration_vanilla_transformer import TRAINING_RATES, VanillaTransformerConfig
from ..data.batching import sorted_batches
from ..inference import Translator
from ..tokenization_ids import text_to_ids
from .benchmarks import MARIAN, in_turns_apart, marian_like
from .decode_benchmark import CTRANSLATE2, CTRANSLATE2_INT8, give_weights

TORCH_ENGINE = "torch"
# Engine and quantization of each program.
_ENGINES = {
    TORCH_ENGINE: ("torch", "float32"),
    CTRANSLATE2: ("ctranslate2", "float32"),
    CTRANSLATE2_INT8: ("ctranslate2", "int8"),
}
# MarianMTModel computes what a model of ours with these fields does, of any of these sizes. What has no part in
# decoding may be anything.
_AS_MARIAN = {"attention_bias": True, "sinusoid_layout": "concatenated", "layer_norm_eps": 1e-5}
_SIZES = ("vocab_size", "d_model", "d_ff", "num_heads", "num_encoder_layers", "num_decoder_layers")
_OF_TRAINING = {*TRAINING_RATES, "use_cache"}


@dataclass(frozen=True)
class EngineWork:
    """What every program translates.

    Args:
        folder: of the checkpoint.
        sentences: to translate; none is empty.
        batch_size: sentences decoded at a time. With 1, each is translated before the next is read.
        num_beams: K.
        lengths: tokens of each translation by torch, `</s>` included.
    """

    folder: str
    sentences: tuple[str, ...]
    batch_size: int
    num_beams: int
    lengths: tuple[int, ...]

    def options(self) -> dict[str, Any]:
        """For `Translator.translate`."""
        read_ahead = {"read_ahead": 1} if self.batch_size == 1 else {}
        return {"batch_size": self.batch_size, "num_beams": self.num_beams, **read_ahead}


@dataclass(frozen=True)
class EngineComparison:
    """Seconds of several programs for the same sentences, measured in turns.

    Args:
        work: what they translate.
        seconds: of each turn, by program.
        agreement: share of sentences that are translated as torch does, by program; Marian has none.
        peak_bytes: highest resident memory of each program's process.
    """

    work: EngineWork
    seconds: dict[str, list[float]]
    agreement: dict[str, float]
    peak_bytes: dict[str, int]

    def ratio(self, name: str) -> float:
        """How many times as many sentences per second as MarianMTModel."""
        return statistics.median(self.seconds[MARIAN]) / statistics.median(self.seconds[name])

    def lines(self) -> list[str]:
        """The comparison as a table of Markdown rows."""
        work = self.work
        what = f"{work.folder}, {len(work.sentences)} sentences, batch {work.batch_size}, beam {work.num_beams}"
        rows = [f"| {what} | sentences/s | x Marian | as torch | peak memory |", "|---|---|---|---|---|"]
        for name, times in self.seconds.items():
            speed = len(work.sentences) / statistics.median(times)
            agrees = f"{self.agreement[name]:.1%}" if name in self.agreement else "-"
            memory = f"{self.peak_bytes[name] / 2**20:,.0f} MiB" if name in self.peak_bytes else "-"
            rows.append(f"| {name} | {speed:,.1f} | {self.ratio(name):.2f} | {agrees} | {memory} |")
        return rows


def compare_engines(
    folder: str, sentences: Sequence[str], batch_size: int, num_beams: int = 4, repeats: int = 3
) -> EngineComparison:
    """Measures MarianMTModel and every engine that is installed, each in a process of its own.

    Engines take text and return text. MarianMTModel takes the same batches as ids, and returns ids: it has the
    checkpoint's weights where it can compute what the checkpoint does. Else its weights are random, and it decodes as
    many steps as the longest translation of each batch has tokens, which no search of its own would undercut.

    Args:
        folder: of a checkpoint of this package.
        sentences: to translate; empty ones are left out.
        batch_size: sentences decoded at a time.
        num_beams: K.
        repeats: turns of each program.

    Returns:
        The comparison.
    """
    visible = [sentence for sentence in sentences if sentence.strip()]
    names = [TORCH_ENGINE, *((CTRANSLATE2, CTRANSLATE2_INT8) if find_spec("ctranslate2") else ())]
    options = {"num_beams": num_beams, "batch_size": batch_size}
    found = {}
    for name in names:
        engine, quantization = _ENGINES[name]
        translator = Translator(folder, engine, "cpu", quantization=quantization)
        found[name] = [best for (best,) in translator.translate_with_details(visible, scores=False, **options)]
    expected = found[TORCH_ENGINE]
    agreement = {
        name: statistics.fmean(mine.text == theirs.text for mine, theirs in zip(found[name], expected, strict=True))
        for name in names
    }
    lengths = tuple(1 + len(each.tokens or ()) for each in expected)
    work = EngineWork(folder, tuple(visible), batch_size, num_beams, lengths)
    programs = {name: (name, work) for name in (MARIAN, *names)}
    seconds, peaks = in_turns_apart(make_program, programs, repeats)
    return EngineComparison(work, seconds, agreement, peaks)


def make_program(name: str, work: EngineWork) -> Callable[[], Any]:
    """One program of the comparison.

    Args:
        name: which: `MARIAN`, `TORCH_ENGINE`, `CTRANSLATE2` or `CTRANSLATE2_INT8`.
        work: what to translate.

    Returns:
        A function that translates all sentences once.
    """
    if name == MARIAN:
        return _marian_program(work)
    engine, quantization = _ENGINES[name]
    translator = Translator(work.folder, engine, "cpu", quantization=quantization)
    return lambda: list(translator.translate(work.sentences, **work.options()))


def can_be_marian(config: PreTrainedConfig) -> bool:
    """Whether MarianMTModel computes what a model of ours does, if it has its weights.

    Args:
        config: of ours.
    """
    marian = VanillaTransformerConfig(**{name: getattr(config, name) for name in _SIZES}, **_AS_MARIAN)
    compared = {each.name for each in fields(marian)} & VanillaTransformerConfig.__annotations__.keys() - _OF_TRAINING
    return all(getattr(config, name) == getattr(marian, name) for name in compared)


def _marian_program(work: EngineWork) -> Callable[[], list[torch.Tensor]]:
    translator = Translator(work.folder, "torch", "cpu")
    ours: Any = translator.model
    marian = marian_like(ours.config).eval()
    has_weights = can_be_marian(ours.config)
    if has_weights:
        give_weights(ours, marian)
    sources = text_to_ids(translator.tokenizer, work.sentences)
    del ours, translator
    batches = []
    for indices in sorted_batches([len(source) for source in sources], work.batch_size):
        rows = [torch.tensor(sources[index]) for index in indices]
        ids = pad_sequence(rows, batch_first=True, padding_value=1)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        steps = max(work.lengths[index] for index in indices)
        limits = {"max_new_tokens": ids.shape[1] + 50} if has_weights else {"min_new_tokens": steps}
        batches.append((ids, mask, {"max_new_tokens": steps, **limits}))
    return lambda: [_generated(marian, *batch, num_beams=work.num_beams) for batch in batches]


def _generated(
    marian: MarianMTModel, ids: torch.Tensor, mask: torch.Tensor, limits: dict[str, int], num_beams: int
) -> torch.Tensor:
    marian.generation_config = GenerationConfig(
        num_beams=num_beams, pad_token_id=1, eos_token_id=2, decoder_start_token_id=0, **limits
    )
    return marian.generate(input_ids=ids, attention_mask=mask)
