"""Where to compute: the device that a user names, or the best there is."""

import torch


def choose_device(name: str = "auto") -> torch.device:
    """Chooses the device to compute on, and makes sure that it can be used.

    Args:
        name: a device of torch, such as "cpu" or "cuda:1"; "auto" for the first of cuda, mps and cpu that is there.

    Returns:
        The device.

    Raises:
        ValueError: there is no such device, or it cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        # Some devices are known to torch and not there; the meta device is there and computes nothing.
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = " ".join(str(error).split("\n")[0].split())
        raise ValueError(f"`device`={name!r} cannot be used: {reason}") from error
    return device
