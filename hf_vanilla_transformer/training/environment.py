"""What a run was computed on: without it, the minutes that a run took say nothing."""

import os
import platform
from pathlib import Path
from typing import Any

import torch
import transformers

from .. import __version__


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Describes the machine and the libraries, without anything that says which machine it is.

    Args:
        device: on which the run computes.

    Returns:
        `device` (the model of the accelerator or of the CPU), `threads` (of torch, in one process),
        `processes` (that train together), and the versions of `python`, `torch`, `transformers` and of this package,
        `hf_vanilla_transformer`; ready for JSON.
    """
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "hf_vanilla_transformer": __version__,
    }


def _processor() -> str:
    """The model of the CPU, which `platform.processor()` does not know on Linux."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
