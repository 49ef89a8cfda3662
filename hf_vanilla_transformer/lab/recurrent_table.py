"""Recurrent models beside the Transformer: scores by length, speed, and the time that a given loss takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..configuration_vanilla_transformer import PRESETS
from ..evaluation import (
    EvaluationSet,
    check_bounds,
    compare_by_length,
    default_tokenizer,
    score_translations,
    system_of_model,
)
from .planning import format_table
from .queue_results import finished_results
from .run_list import QueuedRun, RunList

# Most words of a source in each group: of Multi30k, whose captions have 4 to 30.
BOUNDS = (9, 12, 15, 18)
# What the texts say of a preset.
_CLAIMS = {
    "recurrent": "fails on long sentences (Cho et al. 2014; Bahdanau et al. 2015)",
    "recurrent_additive": "does not fail on long sentences (Bahdanau et al. 2015)",
    "recurrent_multiplicative": "no worse than additive, and cheaper (Luong et al. 2015)",
    "recurrent_gnmt": "deeper is better, with residuals (Wu et al. 2016)",
}
_CLAIM_OF_TRANSFORMERS = "better in less time (Vaswani et al. 2017)"


@dataclass(frozen=True)
class TrainedRun:
    """What the training of one model was like.

    Args:
        name: of the run.
        preset: of its model.
        parameters: of its model.
        updates: that it made.
        tokens_per_second: target tokens, the median over the log; None where the run logged none.
        losses: minutes since the start, and validation loss, at each evaluation; the last is of the final weights.
    """

    name: str
    preset: str
    parameters: int
    updates: int
    tokens_per_second: float | None
    losses: list[tuple[float, float]]

    @classmethod
    def of(cls, run: QueuedRun, results: Mapping[str, Any]) -> "TrainedRun":
        """Reads what a run has left.

        Args:
            run: of a list.
            results: as `finished_results` returns them.

        Returns:
            The run.

        Raises:
            ValueError: it has no validation loss.
        """
        history, metrics = results["history"], results["metrics"]
        if "final_loss" not in metrics:
            raise ValueError(f"{run.name} has no validation loss; give its list validation_data")
        losses = [(entry["minutes"], entry["eval_loss"]) for entry in history if "eval_loss" in entry]
        losses.append((metrics["minutes"], metrics["final_loss"]))
        sizes, speed = (metrics["parameters"], metrics["updates"]), metrics.get("tokens_per_second")
        return cls(run.name, str(run.arguments.preset), *sizes, speed, losses)

    @property
    def lowest_loss(self) -> float:
        """The lowest validation loss on the way."""
        return min(loss for _, loss in self.losses)

    def minutes_to(self, loss: float) -> float | None:
        """Minutes until an evaluation found this loss or a lower one; None if none did.

        Args:
            loss: in nats per token.
        """
        return next((minutes for minutes, found in self.losses if found <= loss), None)

    @property
    def claim(self) -> str:
        """What the texts say of such a model; "-" of one that they do not know."""
        return _CLAIM_OF_TRANSFORMERS if self.preset in PRESETS else _CLAIMS.get(self.preset, "-")


def training_rows(runs: Sequence[TrainedRun], loss: float | None = None) -> list[list[str]]:
    """Makes a table of what training was like.

    Args:
        runs: of one vocabulary, since losses are compared.
        loss: validation loss whose time is taken; None for the lowest that all of them reach.

    Returns:
        Rows of cells, the first with titles.
    """
    loss = max(run.lowest_loss for run in runs) if loss is None else loss
    rows = [["", "parameters", "updates", "target tokens/s", "lowest loss", f"minutes to {loss:.3f}"]]
    for run in runs:
        minutes = run.minutes_to(loss)
        speed = "-" if run.tokens_per_second is None else f"{run.tokens_per_second:,.0f}"
        cells = [run.name, f"{run.parameters:,}", f"{run.updates:,}", speed]
        rows.append([*cells, f"{run.lowest_loss:.3f}", "-" if minutes is None else f"{minutes:.1f}"])
    return rows


def recurrent_tables(
    runs: RunList, data: EvaluationSet, bounds: Sequence[int] = BOUNDS, loss: float | None = None, **options: Any
) -> str:
    """Translates with the models of a list, and compares them beside what the texts claim.

    Args:
        runs: the list; runs that have not ended are left out.
        data: what to translate.
        bounds: as in `score_by_length`.
        loss: as in `training_rows`.
        **options: of `system_of_model`, such as `device`.

    Returns:
        Two tables of Markdown, with the signature of BLEU.

    Raises:
        ValueError: no run has ended, or an argument is out of its range.
        OSError: a file cannot be read.
    """
    check_bounds(bounds)
    ended = [(run, results) for run in runs.runs if (results := finished_results(run)) is not None]
    if not ended:
        raise ValueError(f"no run of {runs.path} has ended; train them with `vanilla-transformer queue {runs.path}`")
    trained = [TrainedRun.of(run, results) for run, results in ended]
    systems = [system_of_model([str(run.output_dir)], [data], **options) for run, _ in ended]
    references, tokenize = list(zip(*data.references, strict=True)), default_tokenizer(data.target_lang)
    (groups,) = compare_by_length(systems, [data], bounds)
    columns = list(zip(*groups.rows(), strict=True))  # titles, sentences, and one of each system
    titles = [f"{words} words ({count})" for words, count in zip(columns[0][1:], columns[1][1:], strict=True)]
    rows = []
    for run, system, column in zip(trained, systems, columns[2:], strict=True):
        whole = score_translations(system.translations[0], references, ["bleu"], tokenize=tokenize)["bleu"]
        rows.append([run.name, f"{whole.value:.2f}", *column[1:], run.claim])
    header, signature = ["BLEU", "all", *titles, "The texts claim"], whole.signature
    tables = [format_table(*training_rows(trained, loss)), format_table(header, *rows), [f"BLEU: {signature}"]]
    return "\n\n".join("\n".join(table) for table in tables)
