"""What a run of training takes, before it is started: parameters, arithmetic, memory and time, by formula."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, PreTrainedConfig

from ..attention_features import num_features
from ..attention_linear import CHUNK
from ..configuration_vanilla_transformer import VanillaTransformerConfig
from .benchmarks import WORKLOADS

# What is taken for granted, and stated in the table.
PEAK_FLOPS = {"A100": 312e12, "H100": 989e12}  # bf16 with dense matrices, from the makers' data sheets
UTILISATION = 0.35
SCALING = {1: 1.0, 8: 0.9, 256: 0.75}  # what share of their sum so many GPUs reach
SENTENCE_LENGTH = 30  # tokens of a source, and of a target
TOKENS_A_GPU = 3125
# Seconds of forward and backward on two cores, fp32, as scripts/BENCHMARKS.md has them (`benchmark train-step`).
MEASURED_SECONDS = {"tiny": 0.601, "base": 2.544}
# Where matrices are narrower than this, as those of `tiny` are, no GPU comes near the assumed share of its peak.
SMALLEST_WIDTH = 512
# Numbers in the logits that the loss makes at a time, elsewhere than on a CPU.
LOGITS_AT_A_TIME = 2**26


@dataclass(frozen=True)
class Plan:
    """A run to be planned.

    Args:
        name: what to call it.
        preset: shape of the model.
        vocab_size: V.
        updates: of the weights.
        tokens: source tokens, and target tokens, of an update.
        overrides: fields of the config that differ from the preset.
        flops_in_paper: training cost in the paper's Table 2.
    """

    name: str
    preset: str
    vocab_size: int
    updates: int
    tokens: int
    overrides: dict[str, Any] = field(default_factory=dict)
    flops_in_paper: float | None = None

    @property
    def config(self) -> VanillaTransformerConfig:
        """The shape of its model."""
        return VanillaTransformerConfig.from_preset(self.preset, vocab_size=self.vocab_size, **self.overrides)

    @property
    def flops(self) -> float:
        """Operations of the whole run."""
        return self.updates * flops_of_tokens(self.config, self.tokens)


_LARGE = {"d_model": 2048, "d_ff": 8192, "num_heads": 32, "num_encoder_layers": 12, "num_decoder_layers": 12}
PLANS = (
    Plan("multi30k-en-de-tiny", "tiny", 4000, 30 * 176, 3072),
    Plan("wmt14-en-de-base", "base", 37000, 100_000, 25_000, flops_in_paper=3.3e18),
    Plan("wmt14-en-de-big", "big", 37000, 300_000, 25_000, flops_in_paper=2.3e19),
    Plan("beyond: 12 + 12 layers, D 2048", "big", 37000, 50_000, 400_000, overrides=_LARGE),
)


def count_parameters(config: PreTrainedConfig) -> int:
    """Counts the numbers that a model learns, each once (§3.4: one matrix is embedding, embedding and projection).

    Args:
        config: its shape; of a Transformer of ours, or of any sequence-to-sequence model that transformers knows.

    Returns:
        As many as Table 3 calls "params".
    """
    auto_class: Any = AutoModelForSeq2SeqLM
    if not config.is_encoder_decoder:
        auto_class = AutoModelForMaskedLM if config.num_decoder_layers == 0 else AutoModelForCausalLM
    with torch.device("meta"):  # nothing is allocated
        model = auto_class.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


def training_flops(config: VanillaTransformerConfig, sentences: int, source_length: int, target_length: int) -> int:
    """Counts the operations of a forward and backward pass that are matrix products, which nearly all are.

    A product of an (m, k) by a (k, n) matrix is 2 m k n operations. In the backward pass each has two of the same size,
    one for either factor, or one, if the other is a matrix of random directions, which are not learned. Counted over
    all positions are attention, though the decoder hides half of them, and logits of a masked language model.

    Args:
        config: the shape (§3).
        sentences: B.
        source_length: S.
        target_length: T.

    Returns:
        Operations, a multiplication and an addition being two.
    """
    d_k, d_v, groups = _heads(config)
    width, inner, head = config.d_model, config.d_ff, d_k + d_v
    source, target = sentences * source_length, sentences * target_length
    # For a token, W^Q and W^O, and W^K and W^V of all heads; for a pair of positions, Q K^T and its product with V.
    one_pair = config.num_heads * head
    queries_and_outputs, keys_and_values = width * one_pair, width * groups * head
    feed_forward = (3 if config.feed_forward == "gated" else 2) * width * inner
    encoder = source * (queries_and_outputs + keys_and_values + _of_pairs(config, source_length, False) + feed_forward)
    self_attention = target * (queries_and_outputs + keys_and_values + _of_pairs(config, target_length, True))
    cross_attention: float = target * queries_and_outputs + source * keys_and_values
    if config.cross_attention == "softmax":
        cross_attention += target * source_length * one_pair
    else:
        of_query, of_key = _of_sums(config)
        cross_attention += target * of_query + source * of_key
    if not config.is_encoder_decoder:
        cross_attention = 0
    decoder = self_attention + cross_attention + target * feed_forward
    projection = target * width * config.vocab_size
    multiplications = config.num_encoder_layers * encoder + config.num_decoder_layers * decoder + projection
    return round(3 * 2 * multiplications)


def _of_pairs(config: VanillaTransformerConfig, length: int, is_causal: bool) -> float:
    """Multiplications per position that bring positions of a self-attention together, softmax's or linear."""
    d_k, d_v, _ = _heads(config)
    if config.attention == "softmax":
        return length * config.num_heads * (d_k + d_v)
    if not is_causal:
        return sum(_of_sums(config))
    # Pairs within a chunk, and sums of those before.
    pairs = min(length, CHUNK) * config.num_heads * (num_features(config) + d_v)
    return pairs + sum(_of_sums(config, with_sums=length > CHUNK))


def _of_sums(config: VanillaTransformerConfig, with_sums: bool = True) -> tuple[float, float]:
    """Multiplications of linear attention for a query and for a key: their features, and with sums those of these."""
    d_k, d_v, groups = _heads(config)
    making = 2 / 3 * d_k * (config.num_random_features or 0)  # in two passes of what others are in three
    features = num_features(config) * with_sums
    return config.num_heads * (making + features * (d_v + 1)), groups * (making + features * d_v)


def _heads(config: VanillaTransformerConfig) -> tuple[int, int, int]:
    """d_k, d_v, and the number of heads of keys and values; the config resolves them."""
    assert config.d_k is not None
    assert config.d_v is not None
    assert config.num_key_value_heads is not None
    return config.d_k, config.d_v, config.num_key_value_heads


def flops_of_tokens(config: VanillaTransformerConfig, tokens: int) -> float:
    """Operations of a batch of `tokens` source and target tokens, in sentences of `SENTENCE_LENGTH`.

    Args:
        config: the shape.
        tokens: of either side.

    Returns:
        Operations of forward and backward.
    """
    return tokens / SENTENCE_LENGTH * training_flops(config, 1, SENTENCE_LENGTH, SENTENCE_LENGTH)


def activation_bytes(config: VanillaTransformerConfig, source_tokens: int, target_tokens: int, bf16: bool) -> int:
    """Counts what the forward pass keeps for the backward pass, of post-norm layers with fused attention.

    In fp32, a layer keeps the input of every product and of every normalisation, and of dropout one byte a number.
    With bf16 (autocast), inputs of products are kept in two bytes, once for W^Q, W^K and W^V together. Normalisations
    stay in fp32. Logits are never kept; see `loss_bytes`. The
    activation is taken for a ReLU; biases of relative positions, and features and sums of linear attention, are not
    counted.

    Args:
        config: the shape.
        source_tokens: of a batch, padding included.
        target_tokens: likewise.
        bf16: whether products are in bf16.

    Returns:
        Bytes.
    """
    d_k, d_v, groups = _heads(config)
    # A gated network keeps the gate, the other factor, and their product.
    width, inner = config.d_model, config.d_ff * (3 if config.feed_forward == "gated" else 1)
    product, norm = (2, 4) if bf16 else (4, 4)
    queries, outputs = config.num_heads * d_k, config.num_heads * d_v
    stored = groups * (d_k + d_v)
    mask = width if config.dropout else 0
    # In fp32 the output of a normalisation is at once the input of what follows, and counted there.
    self_attention = product * (width + queries + outputs + stored) + norm * width + mask
    cross_attention = product * (width + queries + outputs) + norm * width + mask
    feed_forward = product * (width + inner) + norm * width + mask
    keys_and_values = product * (stored + (width if bf16 else 0))
    encoder = config.num_encoder_layers * source_tokens * (self_attention + feed_forward)
    if not config.is_encoder_decoder:
        cross_attention = keys_and_values = 0
    decoder = config.num_decoder_layers * target_tokens * (self_attention + cross_attention + feed_forward)
    return encoder + decoder + config.num_decoder_layers * source_tokens * keys_and_values


def loss_bytes(config: VanillaTransformerConfig, target_tokens: int, bf16: bool) -> int:
    """Counts what the fused loss (§5.4) needs at its peak: logits of some tokens, and gradients made in the same pass.

    Args:
        config: the shape.
        target_tokens: of a batch.
        bf16: whether products are in bf16.

    Returns:
        Bytes.
    """
    product = 2 if bf16 else 4
    logits = min(target_tokens * config.vocab_size, LOGITS_AT_A_TIME)
    # Logits, log-probabilities in fp32, and what the gradient is converted to.
    chunk = logits * (product + 4 + (product if bf16 else 0))
    return chunk + product * target_tokens * config.d_model + 4 * config.vocab_size * config.d_model


def state_bytes(config: VanillaTransformerConfig, bf16: bool) -> int:
    """Counts what a run holds whatever the batch: weights, gradients and Adam's two moments, all in fp32.

    Args:
        config: the shape.
        bf16: whether autocast keeps copies of the weights in bf16 for the length of a step.

    Returns:
        Bytes.
    """
    return count_parameters(config) * (16 + (2 if bf16 else 0))


def seconds_on_gpus(flops: float, gpu: str, count: int) -> float:
    """Divides operations by what GPUs are taken to do in a second.

    Args:
        flops: operations.
        gpu: a key of `PEAK_FLOPS`.
        count: how many.

    Returns:
        Seconds.
    """
    return flops / (PEAK_FLOPS[gpu] * UTILISATION * count * scaling(count))


def scaling(count: int) -> float:
    """What share of their sum so many GPUs are taken to reach: between those of `SCALING`, by doublings.

    Args:
        count: how many GPUs, from 1.

    Returns:
        A share, from 0 to 1; beyond the largest of `SCALING`, that of the largest.
    """
    known = sorted(SCALING)
    above = next((each for each in known if each >= count), known[-1])
    below = max((each for each in known if each <= count), default=known[0])
    if above <= below:
        return SCALING[min(above, below)]
    position = math.log(count / below) / math.log(above / below)
    return SCALING[below] + position * (SCALING[above] - SCALING[below])


def seconds_on_two_cores(plan: Plan) -> float:
    """Scales a measured step on two cores by the operations of a run.

    Args:
        plan: the run.

    Returns:
        Seconds, without optimizer, evaluation and checkpoints.
    """
    return seconds_of_flops_on_two_cores(plan.flops, plan.config)


def seconds_of_flops_on_two_cores(flops: float, config: VanillaTransformerConfig) -> float:
    """Scales the measured step of the model that is nearest in width.

    Args:
        flops: operations.
        config: the shape of the model that needs them.

    Returns:
        Seconds.
    """
    work = {name: WORKLOADS[name] for name in MEASURED_SECONDS}
    configs = {
        name: VanillaTransformerConfig.from_preset(each.preset, vocab_size=each.vocab_size)
        for name, each in work.items()
    }
    nearest = min(configs, key=lambda name: abs(math.log(configs[name].d_model / config.d_model)))
    done = training_flops(configs[nearest], work[nearest].sentences, work[nearest].length, work[nearest].length)
    return flops * MEASURED_SECONDS[nearest] / done


def plan_table() -> str:
    """Plans the runs of `PLANS`.

    Returns:
        Markdown: what is assumed, then work, memory and time of every run, a table each.
    """
    return "\n\n".join("\n".join(format_table(*rows)) for rows in (_assumptions(), _work(), _memory(), _time()))


def _assumptions() -> list[list[str]]:
    shares = ", ".join(f"{share:.0%} of {count}" for count, share in SCALING.items())
    peaks = ", ".join(f"{gpu} {peak / 1e12:.0f}" for gpu, peak in PEAK_FLOPS.items())
    measured = ", ".join(
        f"{name} {WORKLOADS[name].sentences} x {WORKLOADS[name].length} tokens, V {WORKLOADS[name].vocab_size:,}: "
        f"{seconds:.2f} s"
        for name, seconds in MEASURED_SECONDS.items()
    )
    return [
        ["Assumed", "Value"],
        ["peak of a GPU, bf16, TFLOPS", peaks],
        ["share of the peak that one GPU reaches", f"{UTILISATION:.0%}"],
        ["share of their sum that several GPUs reach", shares],
        ["length of a source and of a target, tokens", str(SENTENCE_LENGTH)],
        ["padding, optimizer, evaluation, checkpoints", "take no time"],
        ["measured on two cores, forward and backward, fp32", measured],
    ]


def _work() -> list[list[str]]:
    rows = [
        ["Run", "Parameters", "Updates", "Tokens a side", "Tokens a side, in all", "FLOPs", "in the paper", "ratio"]
    ]
    for plan in PLANS:
        paper = plan.flops_in_paper
        rows.append(
            [
                plan.name,
                f"{count_parameters(plan.config) / 1e6:,.1f}M",
                f"{plan.updates:,}",
                f"{plan.tokens:,}",
                f"{plan.updates * plan.tokens:.2g}",
                f"{plan.flops:.2g}",
                f"{paper:.2g}" if paper else "-",
                f"{paper / plan.flops:.1f}" if paper else "-",
            ]
        )
    return rows


def _memory() -> list[list[str]]:
    tokens = (25_000, TOKENS_A_GPU)
    kept = [f"kept for backward, {count:,} tokens, {kind}" for count in tokens for kind in ("fp32", "bf16")]
    rows = [["GB", "weights, gradients, Adam", *kept, "loss, bf16", f"together, {TOKENS_A_GPU:,} tokens, bf16"]]
    for plan in PLANS:
        config = plan.config
        activations = [activation_bytes(config, count, count, bf16) for count in tokens for bf16 in (False, True)]
        loss = loss_bytes(config, TOKENS_A_GPU, True)
        together = state_bytes(config, True) + activations[-1] + loss
        values = [state_bytes(config, False), *activations, loss, together]
        rows.append([plan.name, *(f"{value / 1e9:,.2f}" for value in values)])
    return rows


def _time() -> list[list[str]]:
    columns = [(gpu, count) for gpu in PEAK_FLOPS for count in SCALING]
    rows = [["Run", *(f"{count} {gpu}" for gpu, count in columns), "updates on 256", "two cores"]]
    for plan in PLANS:
        fills_gpus = plan.config.d_model >= SMALLEST_WIDTH
        times = [format_duration(seconds_on_gpus(plan.flops, *column)) if fills_gpus else "-" for column in columns]
        updates = f"{plan.updates * plan.tokens / (256 * TOKENS_A_GPU):,.0f}" if fills_gpus else "-"
        rows.append([plan.name, *times, updates, format_duration(seconds_on_two_cores(plan))])
    return rows


def format_duration(seconds: float) -> str:
    """Writes a length of time with the unit that suits it.

    Args:
        seconds: the time.

    Returns:
        Such as "2.4 hours".
    """
    for unit, size in (("years", 365 * 86400), ("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.2g} seconds"


def format_table(header: list[str], *rows: list[str]) -> list[str]:
    """Writes rows as a table of Markdown.

    Args:
        header: what stands above the columns.
        *rows: a cell a column.

    Returns:
        The lines.
    """
    ruler = ["---"] * len(header)
    return [f"| {' | '.join(cells)} |" for cells in (header, ruler, *rows)]
