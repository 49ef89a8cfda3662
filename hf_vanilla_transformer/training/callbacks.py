"""What happens at every update besides learning: the moving average, early stopping, the log next to checkpoints."""

from collections.abc import Callable
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

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


class LogBeforeSaving(TrainerCallback):
    """Has the log written with every checkpoint, so that a resumed run adds up no part of a line twice or never."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Asks for a line of the log, where a checkpoint was asked for, or may be after an evaluation."""
        may_save = args.save_strategy == SaveStrategy.BEST or args.load_best_model_at_end
        control.should_log = control.should_log or control.should_save or (may_save and control.should_evaluate)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Likewise."""
        self.on_step_end(args, state, control)


__all__ = ["EarlyStopping", "LogBeforeSaving", "UpdateMovingAverage"]
