"""Which of several processes this one is, as torchrun, accelerate and job arrays say it: by the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Process:
    """One of several processes that share a work. They need no connection.

    Args:
        rank: its number, from 0.
        count: of the processes.
        local_rank: its number among those of its machine; None if nobody said.
    """

    rank: int = 0
    count: int = 1
    local_rank: int | None = None

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] | None = None) -> "Process":
        """Reads `WORLD_SIZE`, `RANK` and `LOCAL_RANK`.

        Args:
            environment: variables; None for those of this process.

        Returns:
            The process; the only one, where `WORLD_SIZE` is not set.

        Raises:
            ValueError: a variable is missing or no such number; the message names it.
        """
        environment = os.environ if environment is None else environment
        if "WORLD_SIZE" not in environment:
            return cls()
        count = _number(environment, "WORLD_SIZE", 1, None)
        rank = _number(environment, "RANK", 0, count)
        local_rank = _number(environment, "LOCAL_RANK", 0, count) if "LOCAL_RANK" in environment else None
        return cls(rank, count, local_rank)

    def take_accelerator(self) -> None:
        """Makes "cuda" mean this process' own GPU, where the machine has some and runs several processes.

        Raises:
            ValueError: the machine has fewer GPUs than processes.
        """
        if self.count == 1 or self.local_rank is None or not torch.cuda.is_available():
            return
        if self.local_rank >= (gpus := torch.cuda.device_count()):
            raise ValueError(
                f"LOCAL_RANK={self.local_rank}, but this machine has {gpus} GPU{'' if gpus == 1 else 's'}; start a "
                "process for each, or give --device cpu"
            )
        torch.cuda.set_device(self.local_rank)


def _number(environment: Mapping[str, str], name: str, least: int, end: int | None) -> int:
    word = environment.get(name)
    if word is None:
        raise ValueError(f"WORLD_SIZE={environment['WORLD_SIZE']} of the environment has no {name}; set both or none")
    if not word.isdecimal() or int(word) < least or (end is not None and int(word) >= end):
        span = f"from {least} to {end - 1}, since WORLD_SIZE={end}" if end is not None else f"of at least {least}"
        raise ValueError(f"{name}={word} of the environment is no whole number {span}")
    return int(word)


__all__ = ["Process"]
