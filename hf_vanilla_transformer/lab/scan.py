"""SCAN, commands and the actions they mean, split by length: does a model generalise to longer outputs than it saw?"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.text_files import read_lines
from ..interop.output_folder import output_folder
from .charts import check_ending, new_chart, save_chart
from .planning import format_table

# Lake and Baroni, 2018, cut at 22; Newman et al., 2020, and Csordás et al., 2021, at others too.
CUTOFFS = (22, 24, 26, 30)
_LINE = re.compile(r"IN: (.+) OUT: (.+)")


@dataclass(frozen=True)
class LengthSplit:
    """One cut of SCAN by the number of actions of the output.

    Args:
        cutoff: the most actions of a pair to learn from.
        train: pairs of command and actions, up to the cutoff.
        validation: pairs of the same lengths that are not learned from.
        test: the longer pairs.
    """

    cutoff: int
    train: Sequence[tuple[str, str]]
    validation: Sequence[tuple[str, str]]
    test: Sequence[tuple[str, str]]


def read_scan(path: str | Path) -> list[tuple[str, str]]:
    """Reads the file `tasks.txt` of SCAN (Lake and Baroni, 2018), or `tasks.txt.gz`.

    Args:
        path: the file.

    Returns:
        Pairs of a command, such as "jump twice", and its actions, such as "I_JUMP I_JUMP".

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is not of the form `IN: command OUT: actions`; the message names file and line.
    """
    pairs = []
    for number, line in enumerate(read_lines(path), 1):
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"{path}:{number}: {line[:60]!r} is not of the form 'IN: command OUT: actions'")
        pairs.append((match[1], match[2]))
    return pairs


def split_by_length(pairs: Sequence[tuple[str, str]], cutoff: int, held_out: int = 500, seed: int = 0) -> LengthSplit:
    """Cuts by the number of actions, and takes some short pairs out of what is learned from.

    Args:
        pairs: what `read_scan` returns.
        cutoff: the most actions of a pair to learn from.
        held_out: how many of those are kept for validation.
        seed: of their choice.

    Returns:
        The split; each part in the order of the file.

    Raises:
        ValueError: a part would be empty.
    """
    short = [pair for pair in pairs if len(pair[1].split()) <= cutoff]
    longer = [pair for pair in pairs if len(pair[1].split()) > cutoff]
    if not longer or len(short) <= held_out:
        raise ValueError(
            f"a cutoff of {cutoff} leaves {len(short)} pairs to learn from, of which {held_out} are held out, and "
            f"{len(longer)} longer ones; choose another"
        )
    chosen = set(random.Random(seed).sample(range(len(short)), held_out))
    train = [pair for place, pair in enumerate(short) if place not in chosen]
    return LengthSplit(cutoff, train, [short[place] for place in sorted(chosen)], longer)


def write_length_splits(
    path: str | Path, folder: str | Path, cutoffs: Sequence[int] = CUTOFFS, overwrite: bool = False
) -> list[LengthSplit]:
    """Writes a folder `cutoff-N` for each cutoff, with `train.tsv`, `validation.tsv` and `test.tsv`.

    Args:
        path: `tasks.txt` or `tasks.txt.gz` of SCAN.
        folder: a free or empty folder; it appears when it is complete.
        cutoffs: where to cut.
        overwrite: whether files that are there are replaced.

    Returns:
        The splits.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: the file is damaged, a cutoff leaves a part empty, or the folder is in use.
    """
    pairs = read_scan(path)
    splits = [split_by_length(pairs, cutoff) for cutoff in cutoffs]
    with output_folder(folder, overwrite) as place:
        for split in splits:
            (place / f"cutoff-{split.cutoff}").mkdir()
            for name in ("train", "validation", "test"):
                text = "".join(f"{command}\t{actions}\n" for command, actions in getattr(split, name))
                (place / f"cutoff-{split.cutoff}" / f"{name}.tsv").write_text(text, encoding="utf-8")
    return splits


def read_pairs(path: str | Path) -> list[tuple[str, str]]:
    """Reads a part of a split, such as `test.tsv`.

    Args:
        path: the file.

    Returns:
        Pairs of a command and its actions.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line does not have one tab, or there is none; the message names file and line.
    """
    pairs = []
    for number, line in enumerate(read_lines(path), 1):
        command, *actions = line.split("\t")
        if len(actions) != 1:
            raise ValueError(f"{path}:{number}: there has to be one tab, between command and actions")
        pairs.append((command, actions[0]))
    if not pairs:
        raise ValueError(f"{path} is empty")
    return pairs


@dataclass(frozen=True)
class LengthAccuracy:
    """How often a model's whole output is right, by the length of what it should be.

    Args:
        name: of the model.
        by_length: for each number of actions, how many outputs are right, and how many there are.
        ended_early: how many are right as far as they go, but end before all actions are there (the decision where to
            put `</s>` that Newman et al., 2020, found to be what fails).
    """

    name: str
    by_length: Mapping[int, tuple[int, int]]
    ended_early: int = 0

    @property
    def total(self) -> float:
        """The share of all outputs that are right, from 0 to 1."""
        right, count = self._sums()
        return right / count

    @property
    def wrong(self) -> int:
        """How many outputs are not right."""
        right, count = self._sums()
        return count - right

    def _sums(self) -> tuple[int, int]:
        right, count = (sum(column) for column in zip(*self.by_length.values(), strict=True))
        return right, count


def accuracy_by_length(name: str, outputs: Sequence[str], references: Sequence[str]) -> LengthAccuracy:
    """Counts exact matches by the number of actions of the reference.

    Args:
        name: of the model.
        outputs: what it made, one for each reference.
        references: what is right.

    Returns:
        The counts, lengths rising.

    Raises:
        ValueError: the numbers differ, or there is nothing to count.
    """
    if len(outputs) != len(references) or not references:
        raise ValueError(f"{len(outputs)} outputs and {len(references)} references do not belong together")
    counts: dict[int, tuple[int, int]] = {}
    ended_early = 0
    for output, reference in zip(outputs, references, strict=True):
        made, wanted = output.split(), reference.split()
        right, count = counts.get(len(wanted), (0, 0))
        counts[len(wanted)] = (right + (made == wanted), count + 1)
        ended_early += len(made) < len(wanted) and made == wanted[: len(made)]
    return LengthAccuracy(name, dict(sorted(counts.items())), ended_early)


def accuracy_table(accuracies: Sequence[LengthAccuracy]) -> str:
    """Writes exact matches as a table of Markdown: a row for each model, a column for each length.

    Args:
        accuracies: of models on one set.

    Returns:
        The table, in percent.
    """
    lengths = list(accuracies[0].by_length)
    header = ["Exact match, %", "all", *(f"{length} actions" for length in lengths)]
    rows = []
    for each in accuracies:
        shares = [100 * right / count for right, count in each.by_length.values()]
        rows.append([each.name, f"{100 * each.total:.1f}", *(f"{share:.1f}" for share in shares)])
    return "\n".join(format_table(header, *rows))


def draw_accuracy(panels: Mapping[str, Sequence[LengthAccuracy]], path: str | Path) -> None:
    """Draws exact match over length: a panel for each set, and in it a line for each model, of one color in all panels.

    Args:
        panels: accuracies of models on one set, by the title of its panel.
        path: the picture, .png or .svg; it appears whole or not at all.

    Raises:
        OSError: the picture cannot be written.
        ValueError: matplotlib is not installed, or the name has another ending.
    """
    check_ending(path)
    figure = new_chart(7, 4 * len(panels))
    places = figure.subplots(len(panels), squeeze=False)[:, 0]
    names = list(dict.fromkeys(each.name for accuracies in panels.values() for each in accuracies))
    for axes, (title, accuracies) in zip(places, panels.items(), strict=True):
        for each in accuracies:
            shares = [100 * right / count for right, count in each.by_length.values()]
            label, color = f"{each.name}: {100 * each.total:.1f}", f"C{names.index(each.name)}"
            axes.plot(list(each.by_length), shares, marker="o", markersize=3, color=color, label=label)
        axes.set(title=title, xlabel="actions of the right output", ylabel="exact match, %", ylim=(-3, 103))
        axes.grid(alpha=0.3)
        axes.legend(title="and over all lengths", fontsize=8)
    save_chart(figure, path)
