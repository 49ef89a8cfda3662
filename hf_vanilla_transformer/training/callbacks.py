"""What happens at every update besides learning: moving average, early stopping, time limit, log by checkpoints."""

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
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


class StopAfterMinutes(TrainerCallback, ExportableState):
    """Ends a run when it has trained for so many minutes, over all its starts.

    What evaluation and checkpoints take does not count. Several processes agree, since their clocks differ.

    Args:
        minutes: of training.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self.seconds = 0.0
        self._agreed = 0.0  # the seconds by which all processes decide
        self._since = time.perf_counter()

    @property
    def is_over(self) -> bool:
        """Whether the time is up; of several processes, by the time that all of them know of."""
        return self._agreed >= 60 * self.minutes

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"args": {"minutes": self.minutes}, "attributes": {"seconds": self.seconds}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Takes the time from the checkpoint, where there is one."""
        saved = state.stateful_callbacks.get(type(self).__name__)
        newest = saved[-1] if isinstance(saved, list) and saved else saved
        self.seconds = float(newest["attributes"]["seconds"]) if state.global_step and newest else 0.0
        self._agreed = self.seconds  # all read the same

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begins to count."""
        self._since = time.perf_counter()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Counts, and has all processes agree on the longest time; here since the trainer has just waited anyway."""
        self._count()
        if args.world_size > 1:
            # Not in float64, which mps lacks; milliseconds fit.
            longest = torch.tensor(round(1000 * self.seconds), device=args.device)
            torch.distributed.all_reduce(longest, op=torch.distributed.ReduceOp.MAX)
            self.seconds = int(longest) / 1000
        self._agreed = self.seconds

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Ends the run, with a checkpoint if it has any, where the time was up before this update was made."""
        if self.is_over:
            control.should_training_stop = True
            control.should_save = control.should_save or args.save_strategy == SaveStrategy.STEPS
        self._count()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Leaves out what the evaluation took."""
        self._since = time.perf_counter()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Leaves out what the checkpoint took."""
        self._since = time.perf_counter()

    def _count(self) -> None:
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now


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


__all__ = ["EarlyStopping", "LogBeforeSaving", "StopAfterMinutes", "UpdateMovingAverage"]
