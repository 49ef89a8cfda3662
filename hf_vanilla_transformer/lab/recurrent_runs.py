"""Recurrent models beside the Transformer: what training was like, and how long it took to each validation loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .run_list import QueuedRun


@dataclass(frozen=True)
class TrainedRun:
    """What the training of one model was like.

    Args:
        name: of the run.
        preset: of its model.
        model: everything that makes its model; runs of one model differ in the learning rate, or in the seed.
        learning_rate: its peak; None for that of §5.3.
        parameters: of its model.
        updates: that it made.
        minutes: of training, as `max_minutes` counts them.
        clock: that they were read from: "cpu" for CPU time, "wall" for wall time.
        tokens_per_second: target tokens by wall time, the median over the log; None where the run logged none.
        losses: minutes of training, and validation loss, at each evaluation on the way.
        final_loss: validation loss of the weights that the run has left, such as an average.
    """

    name: str
    preset: str
    model: str
    learning_rate: float | None
    parameters: int
    updates: int
    minutes: float
    clock: str
    tokens_per_second: float | None
    losses: list[tuple[float, float]]
    final_loss: float

    @classmethod
    def of(cls, run: QueuedRun, results: Mapping[str, Any]) -> "TrainedRun":
        """Reads what a run has left.

        Args:
            run: of a list.
            results: as `finished_results` returns them.

        Returns:
            The run.

        Raises:
            ValueError: it was not evaluated on the way, or has no limit of its minutes.
        """
        metrics, args = results["metrics"], run.arguments
        if "training_minutes" not in metrics:
            raise ValueError(f"{run.name} has no equal minutes of training with other runs; give its list max_minutes")
        evaluations = [entry for entry in results["history"] if "eval_loss" in entry]
        if not evaluations:
            raise ValueError(
                f"{run.name} has no validation loss on its way; give its list validation_data, and eval_steps that it "
                "gets to"
            )
        return cls(
            name=run.name,
            preset=str(args.preset),
            model=f"{args.model_class} {args.preset} {args.config_overrides}",
            learning_rate=args.learning_rate,
            parameters=metrics["parameters"],
            updates=metrics["updates"],
            minutes=metrics["training_minutes"],
            clock=metrics["clock"],
            tokens_per_second=metrics.get("tokens_per_second"),
            losses=[(entry["training_minutes"], entry["eval_loss"]) for entry in evaluations],
            final_loss=metrics["final_loss"],
        )

    @property
    def lowest_loss(self) -> float:
        """The lowest validation loss on the way."""
        return min(loss for _, loss in self.losses)

    @property
    def updates_per_minute(self) -> float:
        """Updates in a minute of training."""
        return self.updates / self.minutes

    def minutes_to(self, loss: float) -> float | None:
        """Minutes of training until the loss was so low, on a straight line between two evaluations.

        Args:
            loss: in nats per token.

        Returns:
            The minutes, which are those of the first evaluation where that found a lower loss; None if none did.
        """
        before: tuple[float, float] | None = None
        for minutes, found in self.losses:
            if found <= loss:
                if before is None:
                    return minutes
                since, above = before
                return since + (minutes - since) * (above - loss) / (above - found)
            before = (minutes, found)
        return None


def better_runs(runs: Sequence[TrainedRun]) -> list[TrainedRun]:
    """Chooses the run of each model that has the lowest final loss.

    Args:
        runs: of one vocabulary, since losses are compared.

    Returns:
        One run for each model, in the order of the models.
    """
    models = dict.fromkeys(run.model for run in runs)
    return [min((run for run in runs if run.model == model), key=lambda run: run.final_loss) for model in models]


def marked_name(run: TrainedRun, runs: Sequence[TrainedRun]) -> str:
    """The name of a run for a table, with a star if it is the better one of its model.

    Args:
        run: one of `runs`.
        runs: all of them.
    """
    is_better = run in better_runs(runs) and sum(other.model == run.model for other in runs) > 1
    return f"{run.name} *" if is_better else run.name


def training_rows(runs: Sequence[TrainedRun]) -> list[list[str]]:
    """Makes a table of what training was like.

    Args:
        runs: of one vocabulary, since losses are compared.

    Returns:
        Rows of cells, the first with titles.
    """
    rows = [["Training", "rate", "parameters", "updates", "minutes", "target tokens/s", "lowest loss", "final loss"]]
    for run in runs:
        rate = "§5.3" if run.learning_rate is None else f"{run.learning_rate:g}"
        cells = [marked_name(run, runs), rate, f"{run.parameters:,}", f"{run.updates:,}"]
        cells.append(f"{run.minutes:.1f} ({run.clock})")
        cells.append("-" if run.tokens_per_second is None else f"{run.tokens_per_second:,.0f}")
        rows.append([*cells, f"{run.lowest_loss:.3f}", f"{run.final_loss:.3f}"])
    return rows


def minutes_rows(runs: Sequence[TrainedRun], losses: Sequence[float] | None = None) -> list[list[str]]:
    """Makes a table of the minutes of training that each run took to validation losses.

    Args:
        runs: of one vocabulary.
        losses: in nats per token; None for the lowest of the better run of each model, the highest of these first.

    Returns:
        Rows of cells, the first with titles; "-" where a run never got there, and "<" where it did before its first
        evaluation.
    """
    losses = sorted((run.lowest_loss for run in better_runs(runs)), reverse=True) if losses is None else losses
    rows = [["Minutes to a loss of", *(f"{loss:.3f}" for loss in losses)]]
    for run in runs:
        cells = [marked_name(run, runs)]
        for loss in losses:
            minutes = run.minutes_to(loss)
            sign = "< " if run.losses[0][1] < loss else ""
            cells.append("-" if minutes is None else f"{sign}{minutes:.1f}")
        rows.append(cells)
    return rows
