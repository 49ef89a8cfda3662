"""Speed of decoding next to MarianMTModel and CTranslate2: one set of weights, the same steps, in turns."""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from transformers import GenerationConfig, MarianMTModel

from ..configuration_vanilla_transformer import VanillaTransformerConfig
from ..interop.checkpoints import their_name
from ..interop.marian import MARIAN_NAMES
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from .benchmarks import MARIAN, OURS, WORKLOADS, in_turns_apart, marian_like, matrix_product_rate

CTRANSLATE2, CTRANSLATE2_INT8 = "CTranslate2 float32", "CTranslate2 int8"

_QUANTIZATION = {CTRANSLATE2: "float32", CTRANSLATE2_INT8: "int8"}


@dataclass(frozen=True)
class Cell:
    """One cell of the table: what is decoded.

    Args:
        size: preset, "tiny" or "base".
        batch_size: B, sentences decoded together.
        num_beams: K; 1 is greedy.
        source_length: S of every sentence.
        steps: tokens of every translation; `</s>` is forbidden to all programs alike.
    """

    size: str
    batch_size: int
    num_beams: int
    source_length: int = 30
    steps: int = 20

    @property
    def vocab_size(self) -> int:
        """V, as in the other benchmarks of this size."""
        return WORKLOADS[self.size].vocab_size

    def config(self) -> VanillaTransformerConfig:
        """Our model with what MarianMTModel has, so that both can have the same weights."""
        return VanillaTransformerConfig.from_preset(
            self.size,
            vocab_size=self.vocab_size,
            attention_bias=True,
            sinusoid_layout="concatenated",
            layer_norm_eps=1e-5,
        )

    def floor(self) -> tuple[float, float]:
        """Operations (a multiplication and an addition are two) and bytes that no program in float32 does without.

        Returns:
            FLOPs of all matrix products; and the bytes of the weights of decoder and projection, read once a step, and
            of the keys and values that a step attends to, those of the source once a sentence.
        """
        config = self.config()
        assert config.d_k is not None
        d_model, inner, d_ff = config.d_model, config.num_heads * config.d_k, config.d_ff
        source, rows = self.source_length, self.num_beams
        encoder_layer = source * (8 * d_model * inner + 4 * d_model * d_ff + 4 * source * inner)
        cross_keys = source * 4 * d_model * inner
        position = 12 * d_model * inner + 4 * d_model * d_ff + 4 * inner * (source + (self.steps + 1) / 2)
        flops: float = config.num_encoder_layers * encoder_layer + config.num_decoder_layers * cross_keys
        positions = 1 + (self.steps - 1) * rows  # all beams read the same start token
        flops += positions * (config.num_decoder_layers * position + 2 * d_model * config.vocab_size)
        weights = config.num_decoder_layers * (6 * d_model * inner + 2 * d_model * d_ff) + d_model * config.vocab_size
        cached = config.num_decoder_layers * 2 * inner * (source + rows * (self.steps + 1) / 2)
        return self.batch_size * flops, 4 * self.steps * (weights + self.batch_size * cached)


@dataclass(frozen=True)
class DecodeComparison:
    """Seconds a batch of several programs, measured in turns.

    Args:
        cell: the work.
        seconds: of a batch in every turn, by program; ours first, then MarianMTModel's.
        peak_bytes: highest resident memory of each program's process, libraries included. All have torch in it.
        flops_per_second: of a large matrix product on this machine.
        bytes_per_second: of reading memory on this machine.
    """

    cell: Cell
    seconds: dict[str, list[float]]
    peak_bytes: dict[str, int]
    flops_per_second: float
    bytes_per_second: float

    def ratio(self, name: str) -> float:
        """How many times as many sentences a second as MarianMTModel."""
        return statistics.median(self.seconds[MARIAN]) / statistics.median(self.seconds[name])

    def lines(self) -> list[str]:
        """The comparison as a table of Markdown rows."""
        cell, (flops, num_bytes) = self.cell, self.cell.floor()
        floor = max(flops / self.flops_per_second, num_bytes / self.bytes_per_second)
        how = "greedy" if cell.num_beams == 1 else f"beam {cell.num_beams}"
        rows = [
            f"| {cell.size}, batch {cell.batch_size}, {how} | sentences/s | x Marian | share of floor | peak memory |",
            "|---|---|---|---|---|",
        ]
        for name, times in self.seconds.items():
            memory = f"{self.peak_bytes[name] / 2**20:,.0f} MiB" if name in self.peak_bytes else "-"
            median = statistics.median(times)
            speed = f"{cell.batch_size / median:,.1f} | {self.ratio(name):.2f} | {floor / median:.0%}"
            rows.append(f"| {name} | {speed} | {memory} |")
        limit = "FLOPs" if floor == flops / self.flops_per_second else "bytes"
        operations = f"{flops / 1e9:.2f} GFLOP at {self.flops_per_second / 1e9:,.0f} GFLOP/s"
        memory = f"{num_bytes / 1e9:.2f} GB at {self.bytes_per_second / 1e9:,.1f} GB/s"
        return [
            *rows,
            f"floor: {operations}, {memory}: {cell.batch_size / floor:,.1f} sentences/s, bound by {limit}",
        ]


def compare_decoding(cell: Cell, repeats: int = 5) -> DecodeComparison:
    """Measures one cell: ours, MarianMTModel, and CTranslate2 where it is installed, each in a process of its own.

    Args:
        cell: the work.
        repeats: turns of each program.

    Returns:
        The comparison.
    """
    names = [OURS, MARIAN, *(_QUANTIZATION if find_spec("ctranslate2") else ())]
    flops_per_second, bytes_per_second = matrix_product_rate(), _reading_rate()
    seconds, peaks = in_turns_apart(make_decoder, {name: (name, cell) for name in names}, repeats)
    return DecodeComparison(cell, seconds, peaks, flops_per_second, bytes_per_second)


def make_decoder(name: str, cell: Cell) -> Callable[[], Any]:
    """One program of the comparison.

    Args:
        name: which: `OURS`, `MARIAN`, `CTRANSLATE2` or `CTRANSLATE2_INT8`.
        cell: the work.

    Returns:
        A function that decodes the batch, and returns the token ids where the program has tensors.
    """
    torch.manual_seed(0)
    config = cell.config()
    ours = VanillaTransformerForConditionalGeneration(config).eval()
    # CTranslate2 takes the last token of a Marian vocabulary for <pad>, and drops it.
    source = torch.randint(4, config.vocab_size - 1, (cell.batch_size, cell.source_length))
    if name == OURS:
        return partial(_generate, ours, source, cell)
    marian = marian_like(config).eval()
    give_weights(ours, marian)
    del ours
    if name == MARIAN:
        return partial(_generate, marian, source, cell)
    return _ctranslate2_decoder(marian, source, cell, _QUANTIZATION[name])


@torch.no_grad()
def give_weights(ours: VanillaTransformerForConditionalGeneration, marian: MarianMTModel) -> None:
    """Gives a MarianMTModel of the same shape our weights.

    Args:
        ours: with biases in its attention.
        marian: every trainable parameter of it is filled.
    """
    theirs = {name: parameter for name, parameter in marian.named_parameters() if parameter.requires_grad}
    for name, parameter in ours.named_parameters():
        theirs.pop(their_name(name, MARIAN_NAMES)).copy_(parameter)
    assert not theirs, f"no weights for {', '.join(theirs)}"


def _generate(
    model: VanillaTransformerForConditionalGeneration | MarianMTModel, source: torch.Tensor, cell: Cell
) -> torch.Tensor:
    # A model without an end decodes to the limit. All other settings are transformers' defaults for both.
    model.generation_config = GenerationConfig(
        num_beams=cell.num_beams, max_new_tokens=cell.steps, pad_token_id=1, decoder_start_token_id=0
    )
    return model.generate(input_ids=source, attention_mask=torch.ones_like(source))


def _ctranslate2_decoder(
    marian: MarianMTModel, source: torch.Tensor, cell: Cell, quantization: str
) -> Callable[[], None]:
    ctranslate2 = import_module("ctranslate2")
    converter = import_module("ctranslate2.converters.transformers")
    tokens = [f"token{index}" for index in range(cell.vocab_size - 1)]
    spec = converter.MarianMTLoader().get_model_spec(marian)
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = tokens[0], tokens[2], tokens[3]
    spec.config.decoder_start_token = tokens[0]
    spec.validate()
    spec.optimize(quantization=quantization)
    with tempfile.TemporaryDirectory() as folder:
        spec.save(folder)
        translator = ctranslate2.Translator(
            folder, compute_type=quantization, inter_threads=1, intra_threads=torch.get_num_threads()
        )
    sentences = [[tokens[index] for index in row] for row in source.tolist()]

    def decode() -> None:
        results = translator.translate_batch(
            sentences, beam_size=cell.num_beams, min_decoding_length=cell.steps, max_decoding_length=cell.steps
        )
        assert {len(result.hypotheses[0]) for result in results} == {cell.steps}

    return decode


def _reading_rate() -> float:
    """What this machine does at best: bytes a second read from memory."""
    long, sums = torch.ones(2**26), []
    for _ in range(5):
        started = time.perf_counter()
        long.sum()
        sums.append(time.perf_counter() - started)
    return 4 * 2**26 / min(sums)
