"""SIGTERM and SIGINT: a run that is asked to stop finishes its update, saves, and stops."""

import signal
import threading
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from .checkpoints import EVALUATION_DUE, IN_BETWEEN


class StopOnSignal(TrainerCallback):
    """Turns the first SIGTERM or SIGINT into a checkpoint and an orderly end; a SIGINT after that interrupts at once.

    `signal_number` says which one was heard, or is None; `stopped_by`, which one ended the run before its end.
    `saves_in_between` says whether the checkpoint is one that the run would not have had without it;
    `evaluation_is_due`, whether the run has yet to be evaluated there, since it is stopped, or since an epoch is
    evaluated after the checkpoint of its last update, from which a run that is killed meanwhile is resumed. Several
    processes agree on the update after which they stop, since a signal may reach them at different ones.
    """

    def __init__(self) -> None:
        self._heard: int | None = None  # by this process
        self._agreed: int | None = None  # by one of several processes, known to all
        self._is_alone = True
        self.stopped_by: int | None = None
        self.saves_in_between = self.evaluation_is_due = False
        self._previous: dict[int, Any] = {}

    @property
    def signal_number(self) -> int | None:
        """The signal that stops the run; of several processes, the one that all of them know of."""
        return self._heard if self._is_alone else self._agreed

    @property
    def marks(self) -> list[str]:
        """Files without content by which the checkpoint that is saved now is told from others."""
        found = {IN_BETWEEN: self.saves_in_between, EVALUATION_DUE: self.evaluation_is_due}
        return [name for name, is_so in found.items() if is_so]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Listens, where Python allows it: in the main thread."""
        self._is_alone = args.world_size == 1
        if not state.is_hyper_param_search:  # one signal ends all trials, but not the next run in the same program
            self._heard = self._agreed = None
        self.stopped_by, self.saves_in_between, self.evaluation_is_due = None, False, False
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._remember)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Has all processes agree on whether a signal came.

        Here, since the trainer has just waited for the norm of the gradient: nothing is left on the device that this
        would wait for.
        """
        if not self._is_alone:
            number = torch.tensor(self._heard or 0, device=args.device)
            torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX)
            self._agreed = int(number) or None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Has a checkpoint saved, and the run end, if a signal came."""
        # The end of an epoch comes next; another may have ended it, such as a time limit.
        is_end = float(state.epoch or 0).is_integer() or state.global_step >= state.max_steps
        is_end = is_end or control.should_training_stop
        evaluates_epochs = args.eval_strategy == IntervalStrategy.EPOCH and args.eval_delay <= (state.epoch or 0)
        self.evaluation_is_due = is_end and evaluates_epochs
        if self.signal_number is not None:
            saves = control.should_save or (is_end and args.save_strategy == SaveStrategy.EPOCH)
            self.stopped_by, self.saves_in_between = self.signal_number, not saves
            self.evaluation_is_due = self.evaluation_is_due or control.should_evaluate
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False  # whoever asks to stop may not wait that long

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leaves out what is due at the end of an epoch: this one did not end, it was stopped.

        A signal that came after the update was done stops the run after the next one, if there is one.
        """
        if self.stopped_by is not None:
            control.should_save = control.should_evaluate = False
        else:
            self.evaluation_is_due = False  # it is made before a checkpoint that is saved now

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stops listening."""
        self.stop_listening()

    def stop_listening(self) -> None:
        """Gives signals back the meaning they had."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self._heard is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._heard = number
