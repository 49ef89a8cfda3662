"""Speed and memory next to a peer: the same work, in turns, so that a busy machine slows both alike."""

import ctypes
import gc
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import MarianConfig, MarianMTModel

from ..configuration_vanilla_transformer import VanillaTransformerConfig
from ..loss import IGNORED_LABEL, projected_label_smoothed_cross_entropy
from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration

OURS, MARIAN, TORCH = "hf_vanilla_transformer", "MarianMTModel", "F.cross_entropy"


@dataclass(frozen=True)
class Workload:
    """What one step works on.

    Args:
        preset: shape of the model.
        vocab_size: V.
        sentences: B.
        length: tokens of the longest source and target.
        shortest: tokens of the shortest; lengths are drawn evenly between the two, and the rest is padding. None
            means that all are equally long, and nothing is padding.
    """

    preset: str
    vocab_size: int
    sentences: int
    length: int
    shortest: int | None = None


WORKLOADS = {
    "tiny": Workload("tiny", vocab_size=10000, sentences=128, length=30),
    "base": Workload("base", vocab_size=37000, sentences=32, length=32),
    # As a Trainer's random batches are, whose sentences differ in length.
    "tiny-padded": Workload("tiny", vocab_size=10000, sentences=128, length=30, shortest=6),
    "base-padded": Workload("base", vocab_size=37000, sentences=32, length=32, shortest=6),
}


@dataclass(frozen=True)
class Comparison:
    """Seconds a step of two programs, measured in turns, and the peak memory of each in a process of its own.

    Args:
        what: the work.
        seconds: every measured step, by program; ours first.
        peak_bytes: highest resident memory of a process that does nothing else, libraries included; empty if not asked.
    """

    what: str
    seconds: dict[str, list[float]]
    peak_bytes: dict[str, int]

    @property
    def speedup(self) -> float:
        """How many times faster ours is: the peer's median time over ours."""
        ours, peer = (statistics.median(times) for times in self.seconds.values())
        return peer / ours

    def lines(self) -> list[str]:
        """The comparison as a table of Markdown rows: program, median, fastest, peak memory; then the ratio."""
        rows = [f"| {self.what} | median | fastest | peak memory |", "|---|---|---|---|"]
        for name, times in self.seconds.items():
            memory = f"{self.peak_bytes[name] / 2**20:,.0f} MiB" if name in self.peak_bytes else "-"
            rows.append(
                f"| {name} | {statistics.median(times) * 1e3:,.0f} ms | {min(times) * 1e3:,.0f} ms | {memory} |"
            )
        return [*rows, f"ratio of medians: {self.speedup:.2f}x"]


def compare_train_step(size: str, repeats: int = 10, memory: bool = True) -> Comparison:
    """Forward and backward with label smoothing 0.1, ours and MarianMTModel's of the same shape.

    Args:
        size: a key of `WORKLOADS`.
        repeats: measured steps of each.
        memory: whether to measure peak memory too, in two more processes.

    Returns:
        The comparison.
    """
    steps = {name: _train_step(name, size) for name in (OURS, MARIAN)}
    peaks = {name: peak_memory(_train_step, name, size) for name in steps} if memory else {}
    work = WORKLOADS[size]
    lengths = str(work.length) if work.shortest is None else f"{work.shortest} to {work.length}"
    what = f"train step, {size}, {work.sentences} x {lengths} tokens, V {work.vocab_size:,}"
    return Comparison(what, in_turns(steps, repeats), peaks)


def compare_loss(repeats: int = 10, tokens: int = 3800) -> Comparison:
    """The fused projection and loss against `F.cross_entropy(label_smoothing=0.1)` on a tiny model's output.

    Args:
        repeats: measured steps of each.
        tokens: that the output is of.

    Returns:
        The comparison, over value and gradients.
    """
    d_model, vocab_size = 128, 10000
    hidden = torch.randn(tokens, d_model, requires_grad=True)
    weight = (torch.randn(vocab_size, d_model) * d_model**-0.5).requires_grad_()
    labels = torch.randint(0, vocab_size, (tokens,))

    def fused() -> None:
        projected_label_smoothed_cross_entropy(hidden, weight, labels, 0.1)[0].backward()

    def plain() -> None:
        F.cross_entropy(hidden @ weight.t(), labels, label_smoothing=0.1, reduction="sum").backward()

    what = f"projection and loss, {tokens:,} tokens, D {d_model}, V {vocab_size:,}"
    return Comparison(what, in_turns({OURS: fused, TORCH: plain}, repeats), {})


def marian_like(config: VanillaTransformerConfig) -> MarianMTModel:
    """Builds a MarianMTModel of the same shape, activation and dropout, with its own biases and sinusoids.

    Args:
        config: ours.

    Returns:
        A model with random weights.
    """
    return MarianMTModel(
        MarianConfig(
            vocab_size=config.vocab_size,
            d_model=config.d_model,
            encoder_layers=config.num_encoder_layers,
            decoder_layers=config.num_decoder_layers,
            encoder_attention_heads=config.num_heads,
            decoder_attention_heads=config.num_heads,
            encoder_ffn_dim=config.d_ff,
            decoder_ffn_dim=config.d_ff,
            dropout=config.dropout,
            activation_function="relu",
            scale_embedding=True,
            pad_token_id=1,
            eos_token_id=2,
            bos_token_id=0,
            decoder_start_token_id=0,
            forced_eos_token_id=None,
            max_position_embeddings=512,
        )
    )


def _train_step(name: str, size: str) -> Callable[[], None]:
    work = WORKLOADS[size]
    torch.manual_seed(0)
    config = VanillaTransformerConfig.from_preset(work.preset, vocab_size=work.vocab_size)
    assert config.pad_token_id is not None
    source, target = torch.randint(4, work.vocab_size, (2, work.sentences, work.length))
    mask = torch.ones_like(source)
    labels = target
    if work.shortest is not None:
        source_lengths, target_lengths = torch.randint(work.shortest, work.length + 1, (2, work.sentences, 1))
        places = torch.arange(work.length)
        mask = (places < source_lengths).long()
        source = source.masked_fill(mask == 0, config.pad_token_id)
        labels = target.masked_fill(places >= target_lengths, IGNORED_LABEL)
    model: nn.Module
    if name == OURS:
        model = VanillaTransformerForConditionalGeneration(config).train()

        def step() -> None:
            model.zero_grad()
            model(input_ids=source, attention_mask=mask, labels=labels).loss.backward()

    else:
        model = marian_like(config).train()
        shifted = torch.cat([torch.zeros_like(target[:, :1]), target[:, :-1]], dim=1)

        def step() -> None:
            model.zero_grad()
            output = model(input_ids=source, attention_mask=mask, decoder_input_ids=shifted, use_cache=False)
            logits = output.logits.flatten(0, 1)
            F.cross_entropy(logits, labels.flatten(), label_smoothing=config.label_smoothing).backward()

    return step


def in_turns(steps: Mapping[str, Callable[[], Any]], repeats: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Measures programs in turns, so that whatever else the machine does slows all alike.

    Args:
        steps: the programs.
        repeats: measured runs of each.
        warm_up: runs of each before, which are not measured: they warm up allocator and caches.

    Returns:
        Seconds of every measured run, by program.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(warm_up + repeats):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def in_turns_apart(
    make_step: Callable[..., Callable[[], Any]], args: dict[str, tuple[Any, ...]], repeats: int, seconds: float = 0.5
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Measures programs in turns, each in a process of its own: where their libraries would slow each other.

    Threads of one library wait for work in a busy loop, and two libraries for threads in one process disturb each
    other for good.

    Args:
        make_step: a function of a module that makes a program.
        args: for it, of each program; picklable.
        repeats: turns of each. In a turn a program runs once, and then again for `seconds`, which is measured.
        seconds: see `repeats`; a program that takes longer is measured once.

    Returns:
        The median seconds of each turn, by program; and the highest resident memory of each process in bytes,
        libraries included, what it took to make the program not (where that can be told: on Linux).
    """
    context = multiprocessing.get_context("spawn")
    connections, processes = {}, []
    for name, of_program in args.items():
        connections[name], theirs = context.Pipe()
        processes.append(
            context.Process(target=_take_turns, args=(theirs, seconds, make_step, *of_program), daemon=True)
        )
        with _environment(OMP_WAIT_POLICY="active", GOMP_SPINCOUNT="300000"):
            processes[-1].start()
        theirs.close()  # so that a program that fails ends the wait for it
    measured: dict[str, list[float]] = {name: [] for name in args}
    for _ in range(repeats):
        for name, connection in connections.items():
            connection.send(True)
            measured[name].append(connection.recv())
            time.sleep(0.3)  # until its threads have stopped waiting
    peaks = {}
    for name, connection in connections.items():
        connection.send(False)
        peaks[name] = connection.recv()
    for process in processes:
        process.join()
    return measured, peaks


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Lets threads wait 3 ms for work before they sleep, as torch's do anyway.

    CTranslate2's would sleep at once on a machine with as many cores as threads, because of one thread more that only
    waits for the others; waking up took ten times as long as the work.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _take_turns(connection: Any, seconds: float, make_step: Callable[..., Callable[[], Any]], *args: object) -> None:
    step = make_step(*args)
    forget_peak_memory()  # of what it took to make the program
    while connection.recv():
        step()
        times: list[float] = []
        while sum(times) < seconds:
            started = time.perf_counter()
            step()
            times.append(time.perf_counter() - started)
        connection.send(statistics.median(times))
    connection.send(peak_memory_of_this_process())


def matrix_product_rate(dtype: torch.dtype = torch.float32) -> float:
    """What this machine does at best: operations a second of a large matrix product on all its threads.

    Args:
        dtype: of the factors.

    Returns:
        FLOPs a second, a multiplication and an addition being two.
    """
    square = torch.randn(1024, 1024).to(dtype)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        square @ square
        seconds.append(time.perf_counter() - started)
    return 2 * 1024**3 / min(seconds)


def in_a_fresh_process(measure: Callable[..., Any], *args: Any) -> Any:
    """Calls a function in a process that has run nothing before, and so has no high-water mark of memory yet.

    On Linux, a server that has imported the module once forks the processes: that takes seconds, and nothing has run
    in the server that a process could inherit.

    Args:
        measure: a function of a module.
        *args: for it; picklable.

    Returns:
        What it returns.
    """
    is_linux = sys.platform == "linux"
    context: Any = multiprocessing.get_context("forkserver" if is_linux else "spawn")
    if is_linux:
        context.set_forkserver_preload([measure.__module__])
    with context.Pool(1) as pool:
        return pool.apply(measure, args)


def peak_memory(make_step: Callable[..., Callable[[], None]], *args: object) -> int:
    """The highest resident memory of a process that does nothing else, libraries included.

    Args:
        make_step: a function of a module that makes a program.
        *args: for it; picklable.

    Returns:
        Bytes.
    """
    return int(in_a_fresh_process(_peak_memory_of_steps, make_step, *args))


def _peak_memory_of_steps(make_step: Callable[..., Callable[[], None]], *args: object) -> int:
    step = make_step(*args)
    for _ in range(3):
        step()
    return peak_memory_of_this_process()


def peak_memory_of_this_process() -> int:
    """The highest resident memory so far of the process that asks, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage() begins with what the parent process had
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: in bytes, and of this process alone


def forget_peak_memory() -> None:
    """Lets `peak_memory_of_this_process` begin anew with what the process has now, on Linux; elsewhere it cannot."""
    forget = Path("/proc/self/clear_refs")
    if forget.exists():
        forget.write_text("5")


def give_back_freed_memory() -> None:
    """Returns freed memory to the system that would be used again, as far as the C library can: glibc, on Linux."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
