"""The family side by side: variants trained alike, with their scores, their speed, and what decoding has to keep."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.batching import padded_batch
from ..evaluation.test_sets import EvaluationSet
from ..inference import load_translator, translate
from ..loss import IGNORED_LABEL
from ..tokenization_ids import text_to_ids
from .benchmarks import in_turns
from .planning import format_table
from .queue_results import finished_results
from .run_list import QueuedRun, RunList

# Tokens of each translation whose time is taken.
_STEPS = 16
# Pairs of the batch that is learned from; captions of Multi30k have 15 tokens or so.
_PAIRS = 128
# Positions at which what a decoder has stored is measured; two, to tell what grows from what does not.
_SHORT, _LONG = 8, 24


@dataclass(frozen=True)
class DecodingState:
    """What decoding one sentence keeps of its own earlier positions, greedily.

    Args:
        bytes_per_token: by which it grows with each token.
        constant_bytes: of any length.
    """

    bytes_per_token: float
    constant_bytes: float

    def __str__(self) -> str:
        grows = f"{self.bytes_per_token:,.0f} a token" if self.bytes_per_token else ""
        return " + ".join(filter(None, [f"{self.constant_bytes:,.0f}" if self.constant_bytes else "", grows]))


@torch.no_grad()
def decoding_state(model: PreTrainedModel) -> DecodingState:
    """Measures the self-attention cache of a model by decoding two prefixes.

    Args:
        model: of this package, in eval mode.

    Returns:
        How large it is. Keys and values of the source, which do not grow, are not in it.
    """
    config = model.config
    source = torch.full((1, 4), config.eos_token_id, device=model.device)

    def stored(length: int) -> int:
        prefix = torch.full((1, length), config.decoder_start_token_id, device=model.device)
        output = model(input_ids=source, decoder_input_ids=prefix, use_cache=True)
        layers = output.past_key_values.self_attention_cache.layers
        return sum(each.nbytes for layer in layers for each in (layer.keys, layer.values))

    short, long = stored(_SHORT), stored(_LONG)
    per_token = (long - short) / (_LONG - _SHORT)
    return DecodingState(per_token, short - _SHORT * per_token)


def decoding_rates(
    models: Mapping[str, tuple[PreTrainedModel, PreTrainedTokenizerBase]],
    sentences: Sequence[str],
    turns: int = 3,
    batch_size: int = 32,
    steps: int = _STEPS,
    **options: Any,
) -> dict[str, float]:
    """Measures how fast models translate, in turns, so that other work on the machine hits all of them alike.

    All translations have the same number of tokens, `</s>` being forbidden before: a model that has learned little
    may go on for long, and its rate would be of that.

    Args:
        models: model and tokenizer, by name.
        sentences: what to translate.
        turns: of each model, after one that is not measured.
        batch_size: sentences decoded together.
        steps: tokens of each translation.
        **options: for `generate()`, such as `num_beams`.

    Returns:
        Sentences a second, the median over the turns.
    """
    options |= {"min_new_tokens": steps, "max_new_tokens": steps}

    def program(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
        return list(translate(model, tokenizer, sentences, batch_size, **options))

    seconds = in_turns({name: partial(program, *pair) for name, pair in models.items()}, turns, warm_up=1)
    return {name: len(sentences) / statistics.median(each) for name, each in seconds.items()}


def training_rates(
    models: Mapping[str, tuple[PreTrainedModel, PreTrainedTokenizerBase]],
    sources: Sequence[str],
    targets: Sequence[str],
    turns: int = 3,
    dtype: torch.dtype = torch.bfloat16,
) -> dict[str, float]:
    """Measures how fast models learn, in turns: a forward and a backward pass over one batch.

    What the optimizer does after it takes as long for all models of as many parameters. The models are in eval mode
    afterwards, and without gradients.

    Args:
        models: model and tokenizer, by name.
        sources: sentences of a batch.
        targets: their translations.
        turns: of each model, after two that are not measured.
        dtype: of the operations that autocast chooses.

    Returns:
        Target tokens a second, `</s>` counted and padding not, the median over the turns.
    """

    def program(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> None:
        with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
            loss = model.train()(**batch, return_logits=False).loss
        loss.backward()
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        model.zero_grad()
        model.eval()

    tokens, programs = {}, {}
    for name, (model, tokenizer) in models.items():
        sides = zip(text_to_ids(tokenizer, sources), text_to_ids(tokenizer, targets, as_target=True), strict=True)
        examples = [{"input_ids": source, "labels": target} for source, target in sides]
        batch = {key: ids.to(model.device) for key, ids in padded_batch(examples, model.config.pad_token_id).items()}
        tokens[name] = int(batch["labels"].ne(IGNORED_LABEL).sum())
        programs[name] = partial(program, model, batch)
    seconds = in_turns(programs, turns)
    return {name: tokens[name] / statistics.median(each) for name, each in seconds.items()}


def family_table(
    runs: RunList, test_set: EvaluationSet, sentences: int = 256, turns: int = 3, device: str = "auto"
) -> str:
    """Puts the variants of a list side by side.

    Args:
        runs: the list, whose entries are variants with one or several seeds each; runs that have not ended are left
            out.
        test_set: what to translate, and to learn from, for the speeds.
        sentences: how many of it are translated.
        turns: as of `decoding_rates`; three times as many of `training_rates`, which are shorter.
        device: where to translate.

    Returns:
        A table of Markdown: a line for each variant, means over its seeds.

    Raises:
        ValueError: no run has ended.
    """
    ended: dict[str, list[tuple[QueuedRun, dict[str, Any]]]] = {}
    for run in runs.runs:
        if (results := finished_results(run)) is not None:
            ended.setdefault(run.entry, []).append((run, results))
    if not ended:
        raise ValueError(f"no run of {runs.path} has ended; train them with `vanilla-transformer queue {runs.path}`")
    models = {}
    for name, seeds in ended.items():
        models[name] = load_translator([str(seeds[0][0].output_dir)], device)
    # Pairs of like lengths, as batches have in training.
    pairs = sorted(zip(test_set.sources, test_set.references[0], strict=True), key=lambda pair: len(pair[0]))
    middle = max(len(pairs) - _PAIRS, 0) // 2
    sources, targets = zip(*pairs[middle : middle + _PAIRS], strict=True)
    dtype = torch.bfloat16 if runs.runs[0].arguments.bf16 else torch.float32
    learned = training_rates(models, sources, targets, 3 * turns, dtype)
    rates = decoding_rates(models, test_set.sources[:sentences], turns)
    rows = []
    for name, seeds in ended.items():
        metrics = [results["metrics"] for _, results in seeds]
        scores = [_mean(metrics, f"final_{score}", digits) for score, digits in (("loss", 3), ("bleu", 2))]
        parameters, state = f"{metrics[0]['parameters']:,}", str(decoding_state(models[name][0]))
        speeds = [f"{learned[name]:,.0f}", f"{rates[name]:.0f}"]
        rows.append([name, parameters, str(len(seeds)), *scores, *speeds, state])
    header = [
        "",
        "parameters",
        "seeds",
        "nats per token",
        "BLEU",
        "learning, target tokens/s",
        f"decoding, sentences of {_STEPS} tokens/s",
        "bytes kept",
    ]
    return "\n".join(format_table(header, *rows))


def _mean(metrics: Sequence[Mapping[str, float]], name: str, digits: int) -> str:
    """The mean over seeds, and half of what lies between the extremes where there are several."""
    values = [each[name] for each in metrics if name in each]
    if not values:
        return "-"
    spread = f" ± {(max(values) - min(values)) / 2:.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


__all__ = ["DecodingState", "decoding_rates", "decoding_state", "family_table", "training_rates"]
