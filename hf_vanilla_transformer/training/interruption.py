"""SIGTERM and SIGINT: a run that is asked to stop finishes its update, saves, and stops."""

import signal
import threading
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class StopOnSignal(TrainerCallback):
    """Turns the first SIGTERM or SIGINT into a checkpoint and an orderly end; a SIGINT after that interrupts at once.

    `signal_number` says which one it was, or is None. Several processes agree on the update after which they stop,
    since a signal may reach them at different ones.
    """

    def __init__(self) -> None:
        self._heard: int | None = None  # by this process
        self._agreed: int | None = None  # by one of several processes, known to all
        self._is_alone = True
        self._previous: dict[int, Any] = {}

    @property
    def signal_number(self) -> int | None:
        """The signal that stops the run; of several processes, the one that all of them know of."""
        return self._heard if self._is_alone else self._agreed

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Listens, where Python allows it: in the main thread."""
        self._is_alone = args.world_size == 1
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
        if self.signal_number is not None:
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False  # whoever asks to stop may not wait that long

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leaves out what is due at the end of an epoch: this one did not end, it was stopped."""
        if self.signal_number is not None:
            control.should_save = control.should_evaluate = False

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
