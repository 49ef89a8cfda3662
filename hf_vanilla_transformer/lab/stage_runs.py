"""Training the staged models by the text's recipe, and looking at what they make of what they were trained on."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..loss import IGNORED_LABEL
from .stages import EOS, EXPERIMENTS, PAD, SOS, Experiment, Pair, build

# As in the text: decoding stops after so many tokens, and the learning rate falls to a tenth after so many epochs.
MAX_TOKENS = 15
MILESTONE = 1000


@dataclass(frozen=True)
class Outcome:
    """What became of one experiment with one seed.

    Args:
        loss: of the last update, with dropout: the mean squared error of numbers, or nats per token.
        outputs: what the model makes of each source of the task.
        is_learned: whether these are the targets, all of them.
    """

    loss: float
    outputs: tuple[tuple[float, ...], ...]
    is_learned: bool


def run(experiment: Experiment, seed: int) -> Outcome:
    """Trains a stage on a task, and looks at what it makes of the sources it was trained on.

    Args:
        experiment: which.
        seed: of weights and dropout.

    Returns:
        What became of it.
    """
    model = build(experiment.stage, seed).train()
    # Fused, because a loop over weights as small as these takes longer than their arithmetic.
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [MILESTONE], gamma=0.1)
    copies = experiment.samples // len(experiment.pairs)
    pairs = [pair for pair in experiment.pairs for _ in range(copies)]
    takes_numbers = experiment.stage.takes_numbers
    compute_loss = _plain_loss(model, pairs) if takes_numbers else _token_loss(model, experiment, pairs)
    loss = torch.zeros(())
    for _ in range(experiment.epochs):
        loss = compute_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        if takes_numbers:
            outputs = tuple(_plain_output(model, source) for source, _ in experiment.pairs)
        else:
            outputs = tuple(decode(model, source, experiment.stage.is_causal) for source, _ in experiment.pairs)
    is_learned = all(is_right(*each) for each in zip(outputs, experiment.pairs, strict=True))
    return Outcome(float(loss.detach()), outputs, is_learned)


def run_all(
    seeds: Sequence[int],
    experiments: Sequence[Experiment] = EXPERIMENTS,
    processes: int = 1,
    step: Callable[[], Any] = lambda: None,
) -> Iterator[tuple[Experiment, list[Outcome]]]:
    """Runs experiments with several seeds.

    Args:
        seeds: at least one.
        experiments: which.
        processes: runs at a time. Each computes on one core, for which these models are small enough.
        step: called whenever a run has ended.

    Yields:
        Each experiment and its outcomes, in the order of the seeds, as soon as they are there.
    """
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(processes, initializer=_begin)
    try:
        waiting = [(each, [pool.submit(run, each, seed) for seed in seeds]) for each in experiments]
        for _, runs in waiting:
            for each in runs:
                each.add_done_callback(lambda _: step())
        for experiment, runs in waiting:
            yield experiment, [each.result() for each in runs]
    except BaseException:  # runs that have begun would go on to their end
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Begins a process: with one thread, and Ctrl-C ends it without a word, because its parent says what is to say."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def is_right(output: Sequence[float], pair: Pair) -> bool:
    """Whether an output is the target of a pair; numbers are, if they are nearer to it than 0.25.

    Args:
        output: of a model.
        pair: source and target.

    Returns:
        Whether all of it is, and nothing is left over.
    """
    target = pair[1]
    return len(output) == len(target) and all(abs(a - b) < 0.25 for a, b in zip(output, target, strict=True))


def decode(model: Any, source: Sequence[int], is_causal: bool = True) -> tuple[int, ...]:
    """Decodes greedily, as the text does: each step predicts all tokens anew, and one more.

    Where positions of the target see only those before them, the tokens stay the same, and this is greedy search.

    Args:
        model: with a head, in eval mode.
        source: zeros and ones.
        is_causal: whether positions of the target see only those before them.

    Returns:
        Up to `MAX_TOKENS` tokens, without the end.
    """
    input_ids = torch.tensor([[SOS, *source, EOS]])
    made = [SOS]
    while len(made) <= MAX_TOKENS and made[-1] != EOS:
        target = torch.tensor([made])
        logits = model(input_ids=input_ids, decoder_input_ids=target, **visibility(target, is_causal)).logits
        made = [SOS, *logits[0].argmax(dim=-1).tolist()]
    return tuple(made[1:-1] if made[-1] == EOS else made[1:])


def visibility(target: torch.Tensor, is_causal: bool) -> dict[str, Any]:
    """Says what each position of the target sees.

    Args:
        target: (B, T) or (B, T, D).
        is_causal: whether these are only those before it, which is the model's default.

    Returns:
        Arguments of the model: nothing, or a mask with which each position sees the whole target. The decoder
        takes masks of this shape as they are; static caches need that, too.
    """
    if is_causal:
        return {}
    batch_size, length = target.shape[:2]
    return {"decoder_attention_mask": torch.ones(batch_size, 1, length, length, dtype=torch.bool)}


def _token_loss(model: Any, experiment: Experiment, pairs: Sequence[Pair]) -> Callable[[], torch.Tensor]:
    sources = [torch.tensor([SOS, *source, EOS]) for source, _ in pairs]
    labels = [torch.tensor([*target, EOS]) for _, target in pairs]
    inputs = [torch.tensor([SOS, *target]) for _, target in pairs]
    source, target = (
        nn.utils.rnn.pad_sequence(each, batch_first=True, padding_value=PAD) for each in (sources, inputs)
    )
    label = nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=IGNORED_LABEL)
    masks = visibility(target, experiment.stage.is_causal)
    if experiment.stage.pads:
        # The target needs none: its padding is on the right, where the causal mask hides it, and is never a label.
        masks["attention_mask"] = source.ne(PAD).long()
    return lambda: model(input_ids=source, decoder_input_ids=target, labels=label, **masks).loss


def _plain_loss(model: Any, pairs: Sequence[Pair]) -> Callable[[], torch.Tensor]:
    source = torch.tensor([pair[0] for pair in pairs], dtype=torch.float32).unsqueeze(-1)
    target = torch.tensor([pair[1] for pair in pairs], dtype=torch.float32).unsqueeze(-1)
    # Each number is predicted from those before it; there is no start, as in the text.
    return lambda: nn.functional.mse_loss(plain_forward(model, source, target[:, :-1]), target[:, 1:])


def plain_forward(model: Any, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Lets numbers through encoder and decoder, without embedding, causal mask and head.

    Args:
        model: of the first stage.
        source: (B, S, 1).
        target: (B, T, 1).

    Returns:
        (B, T, 1).
    """
    masks = visibility(target, is_causal=False)
    return model(inputs_embeds=source, decoder_inputs_embeds=target, use_cache=False, **masks).last_hidden_state


def _plain_output(model: Any, source: Sequence[int]) -> tuple[float, ...]:
    numbers = torch.tensor([source], dtype=torch.float32).unsqueeze(-1)
    return tuple(plain_forward(model, numbers, numbers).flatten().tolist())
