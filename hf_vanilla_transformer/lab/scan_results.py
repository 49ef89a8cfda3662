"""What a list of runs has learned of SCAN: exact match on longer outputs by kind of positions and cutoff."""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.corpora import Corpus
from ..inference import load_translator, translate
from .planning import format_table
from .queue_results import finished_results
from .run_list import QueuedRun, RunList
from .scan import LengthAccuracy, accuracy_by_length, read_pairs

# Exact match in percent, by cutoff, as "The Devil is in the Detail" (Csordás et al., 2021) has it. Neither is of models
# like those here: the first repeats one layer, and the second (Newman et al., 2020) is told how long outputs are; its
# figures are those that the first paper's repository draws beside its own.
PUBLISHED: Mapping[str, Mapping[int, float]] = {
    "published: relative positions, one layer repeated": {26: 100.0, 30: 100.0},
    "published: the best before, told the length": {22: 58.0, 24: 54.0, 26: 82.0, 30: 89.0},
}
_ENTRY = re.compile(r"scan-(\d+)-(.+)")


@dataclass(frozen=True)
class ScanRun:
    """A finished run of a list, and what it has right.

    Args:
        cutoff: the most actions of a pair that it learned from.
        encoding: its kind of positions, by the name of its entry.
        accuracy: on the longer pairs; its name is that of the run.
        held_out: the share, from 0 to 1, that it has right of pairs as short as those that it learned from; None where
            the run did not find out.
    """

    cutoff: int
    encoding: str
    accuracy: LengthAccuracy
    held_out: float | None


def score_model(
    name: str,
    folder: str | Path,
    pairs: Sequence[tuple[str, str]],
    device: str = "auto",
    dtype: str = "auto",
    batch_tokens: int | None = None,
) -> LengthAccuracy:
    """Decodes the commands of a set greedily, as those who are compared with do, and counts what is right.

    Args:
        name: of the model.
        folder: of the model.
        pairs: commands and actions.
        device: where to decode.
        dtype: of the weights; "auto" for that of the file.
        batch_tokens: tokens decoded together, padding included.

    Returns:
        The counts.

    Raises:
        OSError: there is no model.
        ValueError: it cannot be loaded.
    """
    model, tokenizer = load_translator([str(folder)], device, dtype)
    commands, actions = zip(*pairs, strict=True)
    outputs = list(translate(model, tokenizer, list(commands), batch_tokens=batch_tokens, num_beams=1))
    return accuracy_by_length(name, outputs, actions)


def score_runs(
    runs: RunList, device: str = "auto", dtype: str = "auto", batch_tokens: int | None = None
) -> tuple[list[ScanRun], list[str]]:
    """Scores the runs of a list that have ended, each on the `test.tsv` beside the pairs that it learned from.

    Args:
        runs: the list, whose entries are named `scan-CUTOFF-ENCODING`.
        device: as of `score_model`.
        dtype: likewise.
        batch_tokens: likewise.

    Returns:
        The runs that have ended, in their order; and the names of the others.

    Raises:
        OSError: a test set or model cannot be read.
        ValueError: no run has ended, an entry has another name, or a test set is of another cutoff.
    """
    found, waiting = [], []
    tests: dict[Path, list[tuple[str, str]]] = {}
    for run in runs.runs:
        match = _ENTRY.fullmatch(run.entry)
        if match is None:
            raise ValueError(f"{run.where}: its name is not of the form scan-CUTOFF-ENCODING, such as scan-26-rotary")
        results = finished_results(run)
        if results is None:
            waiting.append(run.name)
            continue
        cutoff, path = int(match[1]), _test_of(run)
        pairs = tests[path] = tests.get(path) or read_pairs(path)
        if (shortest := min(len(actions.split()) for _, actions in pairs)) <= cutoff:
            raise ValueError(f"{path} has outputs of {shortest} actions and is no test of {run.entry}")
        wrong = results["metrics"].get("final_wer")
        accuracy = score_model(run.name, run.output_dir, pairs, device, dtype, batch_tokens)
        found.append(ScanRun(cutoff, match[2], accuracy, None if wrong is None else 1 - wrong / 100))
    if not found:
        raise ValueError(f"no run of {runs.path} has ended; train them with `vanilla-transformer queue {runs.path}`")
    return found, waiting


def _test_of(run: QueuedRun) -> Path:
    return Path(Corpus.parse(run.arguments.train_data[0]).files[0]).with_name("test.tsv")


def scan_table(found: Sequence[ScanRun]) -> str:
    """Puts kinds of positions beside cutoffs, and beside what is published.

    Args:
        found: finished runs.

    Returns:
        A table of Markdown, in percent: mean and standard deviation over seeds. The last two columns are over all
        cutoffs: of short pairs that were not learned from, whether a model has learned at all; and of the wrong ones of
        the longer outputs, how many only end too early.
    """
    cutoffs = sorted({each.cutoff for each in found})
    rows = []
    for encoding in dict.fromkeys(each.encoding for each in found):
        ours = [each for each in found if each.encoding == encoding]
        totals = [[each.accuracy.total for each in ours if each.cutoff == cutoff] for cutoff in cutoffs]
        short = [each.held_out for each in ours if each.held_out is not None]
        wrong = sum(each.accuracy.wrong for each in ours)
        early = f"{100 * sum(each.accuracy.ended_early for each in ours) / wrong:.1f}" if wrong else "-"
        rows.append([encoding, *map(_mean, totals), _mean(short), early])
    for source, values in PUBLISHED.items():
        rows.append([source, *(f"{values[cutoff]:.0f}" if cutoff in values else "-" for cutoff in cutoffs), "-", "-"])
    header = ["Exact match, %", *(f"longer than {cutoff} actions" for cutoff in cutoffs), "as short, held out",
              "of the wrong, only ended early"]  # fmt: skip
    return "\n".join(format_table(header, *rows))


def _mean(shares: Sequence[float]) -> str:
    if not shares:
        return "-"
    spread = f" ± {100 * statistics.stdev(shares):.1f}" if len(shares) > 1 else ""
    return f"{100 * statistics.fmean(shares):.1f}{spread}"


def accuracy_panels(found: Sequence[ScanRun]) -> dict[str, list[LengthAccuracy]]:
    """Adds up the seeds of each kind of positions, for `draw_accuracy`.

    Args:
        found: finished runs.

    Returns:
        For each cutoff, by a title, the exact matches by length of each kind of positions.
    """
    panels = {}
    for cutoff in sorted({each.cutoff for each in found}):
        lines: dict[str, dict[int, tuple[int, int]]] = {}
        for each in (each for each in found if each.cutoff == cutoff):
            counts = lines.setdefault(each.encoding, {})
            for length, (right, count) in each.accuracy.by_length.items():
                before = counts.get(length, (0, 0))
                counts[length] = (before[0] + right, before[1] + count)
        title = f"learned from outputs of up to {cutoff} actions"
        panels[title] = [LengthAccuracy(encoding, counts) for encoding, counts in lines.items()]
    return panels


__all__ = ["PUBLISHED", "ScanRun", "accuracy_panels", "scan_table", "score_model", "score_runs"]
