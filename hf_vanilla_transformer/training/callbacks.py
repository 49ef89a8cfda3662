"""What happens at every update besides learning: the moving average, early stopping, the log next to checkpoints."""

from collections.abc import Callable
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .moving_average import MovingAverage


class UpdateMovingAverage(TrainerCallback):
    """Takes the weights after each update into a moving average.

    Args:
        average: returns the average, which there is from the beginning of training on.
        weights: returns the model that learns.
    """

    def __init__(self, average: Callable[[], MovingAverage | None], weights: Callable[[], Any]) -> None:
        self._average, self._weights = average, weights

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Updates the average."""
        average = self._average()
        assert average is not None
        average.update(self._weights())


class EarlyStopping(EarlyStoppingCallback):
    """transformers' early stopping, whose patience is as far used up after resuming as it was before.

    transformers would restore it together with the trainer's control, in which a run that was asked to stop has
    written that it should stop.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Takes the count from the checkpoint, where there is one."""
        super().on_train_begin(args, state, control, **kwargs)
        self.early_stopping_patience_counter = 0
        saved = state.stateful_callbacks.get(type(self).__name__)
        if state.global_step and saved:
            newest = saved[-1] if isinstance(saved, list) else saved
            for name, value in newest["attributes"].items():
                setattr(self, name, value)


class IntervalsAsGiven(TrainerCallback):
    """Has a resumed run log, evaluate and save as often as it says now; transformers does it as often as before."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Replaces the intervals that came with the checkpoint."""
        state.compute_steps(args, state.max_steps)


class LogBeforeSaving(TrainerCallback):
    """Has the log written with every checkpoint, so that a resumed run adds up no part of a line twice or never."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Asks for a line of the log, where a checkpoint was asked for."""
        control.should_log = control.should_log or control.should_save

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Likewise."""
        control.should_log = control.should_log or control.should_save


__all__ = ["EarlyStopping", "IntervalsAsGiven", "LogBeforeSaving", "UpdateMovingAverage"]
