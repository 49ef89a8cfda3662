"""What happens at every update besides learning: moving average, early stopping, time limit, log by checkpoints."""

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

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

    What evaluation and checkpoints take does not count. Where one thread of one process computes on a CPU, its CPU time
    is counted, so that equal minutes are equal work, whatever else the machine does. Elsewhere it is wall time: threads
    may wait for each other, and several processes agree, since their clocks differ.

    Args:
        minutes: of training.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self.seconds = 0.0
        self._agreed = 0.0  # the seconds by which all processes decide
        # Clocks that were read, "cpu" or "wall": two where a resumed run has another number of threads.
        self.clocks: list[str] = []
        self._is_catching_up = False
        self._now: Callable[[], float] = time.perf_counter
        self._since = self._now()

    @property
    def is_over(self) -> bool:
        """Whether the time is up; of several processes, by the time that all of them know of."""
        return self._agreed >= 60 * self.minutes

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"args": {"minutes": self.minutes}, "attributes": {"seconds": self.seconds, "clocks": self.clocks}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Chooses the clock, and takes the time from the checkpoint, where there is one."""
        saved = state.stateful_callbacks.get(type(self).__name__)
        newest = saved[-1] if isinstance(saved, list) and saved else saved
        before = newest["attributes"] if state.global_step and newest else {}
        self.seconds, self.clocks = float(before.get("seconds", 0.0)), list(before.get("clocks", ()))
        own = "cpu" if _is_one_thread(args) else "wall"
        self._now = time.process_time if own == "cpu" else time.perf_counter
        self.clocks += [own] if own not in self.clocks else []
        self._agreed = self.seconds  # all read the same
        self._is_catching_up = state.global_step > 0

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begins to count."""
        self._since = self._now()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leaves out what a resumed run took to come back to where it was: reading, and planning batches, once more."""
        if self._is_catching_up:
            self._since, self._is_catching_up = self._now(), False

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
        """Ends the run, with a checkpoint if it has any, where the time was up before this update was made.

        Where the best checkpoint is wanted, there is an evaluation too, as at the end of any run: it may be the first.
        """
        if self.is_over:
            control.should_training_stop = True
            by_steps = args.eval_strategy == IntervalStrategy.STEPS and args.eval_delay <= state.global_step
            control.should_evaluate = control.should_evaluate or (args.load_best_model_at_end and by_steps)
            control.should_save = control.should_save or args.save_strategy == SaveStrategy.STEPS
        self._count()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Leaves out what the evaluation took."""
        self._since = self._now()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Leaves out what the checkpoint took."""
        self._since = self._now()

    def _count(self) -> None:
        now = self._now()
        self.seconds, self._since = self.seconds + now - self._since, now


def _is_one_thread(args: TrainingArguments) -> bool:
    """Whether the CPU time of this process is the work of training: no GPU, no other process or thread takes part."""
    alone = args.world_size == 1 and args.dataloader_num_workers == 0
    return alone and torch.device(args.device).type == "cpu" and torch.get_num_threads() == 1


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
