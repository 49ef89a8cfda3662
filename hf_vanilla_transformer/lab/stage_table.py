"""What came out of the staged models beside what the text says of them: a table, and the same as data."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .planning import format_table
from .stage_runs import MAX_TOKENS, Outcome, is_right
from .stages import EOS, PAD, PADDING, PLAIN, SOS, TOKENS, Experiment, build, count_parameters

Results = Sequence[tuple[Experiment, Sequence[Outcome]]]

_NAMES = {SOS: "<sos>", EOS: "<eos>", PAD: "<pad>"}


def parameter_counts() -> list[tuple[str, int, int]]:
    """Counts the parameters of the models.

    Returns:
        For each model its name, how many parameters the text counts, and how many there are.
    """
    tiny = replace(PLAIN, fields={**PLAIN.fields, "d_ff": 1})
    # What the text's program prints for the last one: its head has no row for padding, which is never predicted.
    models = (("plain, d_ff 1", tiny, 46), ("plain", PLAIN, 88), ("tokens, causal, positions", TOKENS, 1332))
    counted = [(name, claimed, count_parameters(build(stage, 0))) for name, stage, claimed in models]
    return [*counted, ("padding", 1340, count_parameters(build(PADDING, 0)))]


def agreement(experiment: Experiment, outcomes: Sequence[Outcome]) -> str:
    """Says whether seeds do what the text says.

    Args:
        experiment: has the claim.
        outcomes: of its seeds.

    Returns:
        "yes", "no", or "in 3 of 5" seeds.
    """
    agreeing = sum(each.is_learned == experiment.claim for each in outcomes)
    return {0: "no", len(outcomes): "yes"}.get(agreeing, f"in {agreeing} of {len(outcomes)}")


def write_output(numbers: Sequence[float]) -> str:
    """Writes what a model makes, such as "0101", or "0000..." where it would not stop.

    Args:
        numbers: tokens, or numbers between them.

    Returns:
        The text.
    """
    if not all(float(number).is_integer() for number in numbers):
        return " ".join(f"{number:.2f}" for number in numbers)
    written = [_NAMES.get(int(number), str(int(number))) for number in numbers]
    return "".join(written[:4]) + "..." if len(written) >= MAX_TOKENS else "".join(written) or "nothing"


def wrong_outputs(experiment: Experiment, outcomes: Sequence[Outcome]) -> str:
    """Writes what the first seed that failed makes of the sources that it fails on.

    Args:
        experiment: which.
        outcomes: of its seeds.

    Returns:
        Such as "1 → 0000...", or "-".
    """
    failed = next((each for each in outcomes if not each.is_learned), None)
    if failed is None:
        return "-"
    sides = zip(experiment.pairs, failed.outputs, strict=True)
    wrong = [(pair[0], output) for pair, output in sides if not is_right(output, pair)]
    return ", ".join(f"{write_output(source)} → {write_output(output)}" for source, output in wrong)


def report(results: Results, seeds: Sequence[int]) -> str:
    """Writes everything as Markdown.

    Args:
        results: experiments with the outcomes of all seeds.
        seeds: they.

    Returns:
        Parameter counts, a row for each experiment, and remarks.
    """
    counts = [[name, f"{claimed:,}", f"{count:,}"] for name, claimed, count in parameter_counts()]
    rows: list[list[str]] = []
    remarks: list[str] = []
    for experiment, outcomes in results:
        loss = statistics.median(each.loss for each in outcomes)
        cells = [experiment.stage.name, experiment.task, "learned" if experiment.claim else "not learned"]
        cells.append(f"{sum(each.is_learned for each in outcomes)} of {len(seeds)}")
        cells += [agreement(experiment, outcomes), wrong_outputs(experiment, outcomes)]
        cells += ["-" if experiment.claimed_loss is None else f"{experiment.claimed_loss:.4f}", f"{loss:.4f}"]
        if experiment.remark:
            remarks.append(f"{len(remarks) + 1}. {experiment.remark}")
        rows.append([*cells, str(len(remarks)) if experiment.remark else ""])
    header = ["stage", "task", "the text says", "seeds that learn it", "agrees", "what comes out instead"]
    header += ["loss, the text", "loss, median", "remark"]
    lines = [*format_table(["parameters", "the text", "here"], *counts), "", *format_table(header, *rows)]
    return "\n".join([*lines, *(["", *remarks] if remarks else [])])


def as_data(results: Results, seeds: Sequence[int]) -> dict[str, Any]:
    """Returns everything as data for JSON.

    Args:
        results: experiments with the outcomes of all seeds.
        seeds: they.

    Returns:
        Parameter counts, and for each experiment what was done, what the text says, and what came of each seed.
    """
    names = ("model", "claimed", "counted")
    experiments = [
        {
            "stage": experiment.stage.name,
            "task": experiment.task,
            "pairs": [["".join(map(str, side)) for side in pair] for pair in experiment.pairs],
            "epochs": experiment.epochs,
            "samples": experiment.samples,
            "claim": {"is_learned": experiment.claim, "loss": experiment.claimed_loss},
            "agrees": agreement(experiment, outcomes),
            "remark": experiment.remark,
            "outcomes": [
                {"seed": seed, "is_learned": each.is_learned, "loss": each.loss, "outputs": each.outputs}
                for seed, each in zip(seeds, outcomes, strict=True)
            ],
        }
        for experiment, outcomes in results
    ]
    return {
        "text": "arXiv 2502.19597",
        "parameters": [dict(zip(names, each, strict=True)) for each in parameter_counts()],
        "experiments": experiments,
    }
