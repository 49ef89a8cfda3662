"""An exponential moving average of the weights of a run, as an alternative to averaged checkpoints (§6.1)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate.utils import DistributedType
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

_UPDATES = "updates"  # the key of the metadata that counts them


class MovingAverage:
    """An exponential moving average of a model's weights: average = d * average + (1 - d) * weights.

    At update t, from 1, d is min(decay, (1 + t) / (10 + t)), as in OpenNMT and TensorFlow. With the full decay from the
    first update, a short run would end with an average that is still mostly the initial weights.

    Args:
        model: whose weights at this time are the first average.
        decay: the share of the average that stays at an update, once the ramp has reached it.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes the weights after an update into the average.

        Args:
            model: the one that learns.
        """
        self.updates += 1
        update = get_ema_multi_avg_fn(min(self.decay, (1 + self.updates) / (10 + self.updates)))
        update(list(self.weights.values()), [parameter.detach() for parameter in model.parameters()], self.updates)

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Gives a model the averaged weights for as long as this lasts.

        Args:
            model: the one that learns.
        """
        own = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        self.copy_to(model)
        try:
            yield
        finally:
            _copy(own, model)

    def copy_to(self, model: nn.Module) -> None:
        """Gives a model the averaged weights.

        Args:
            model: the one that learned.
        """
        _copy(self.weights, model)

    def save(self, path: str | Path) -> None:
        """Writes the average as safetensors, with the number of updates as metadata.

        Args:
            path: the file.
        """
        weights = {name: weight.contiguous() for name, weight in self.weights.items()}
        save_file(weights, path, metadata={_UPDATES: str(self.updates)})

    def load(self, path: str | Path) -> None:
        """Reads what `save` wrote.

        Args:
            path: the file.

        Raises:
            ValueError: it is no average of such a model; nothing was read then.
        """
        try:
            with safe_open(path, "pt") as file:
                updates = (file.metadata() or {}).get(_UPDATES)
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        except SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file: {error}") from error
        if updates is None:
            raise ValueError(f"{path} does not say of how many updates it is the average")
        for name in sorted(weights.keys() ^ self.weights.keys()):
            raise ValueError(f"{path} and the model do not both have {name}")
        for name, weight in weights.items():
            if weight.shape != self.weights[name].shape:
                shape = tuple(self.weights[name].shape)
                raise ValueError(f"{path}: {name} is {tuple(weight.shape)}, in the model {shape}")
        self.updates = int(updates)
        for name, weight in weights.items():
            self.weights[name].copy_(weight)


def refuse_divided_weights(final_weights: str, engine: DistributedType, zero_stage: int) -> None:
    """Refuses averages of weights that no process has whole.

    DeepSpeed is refused a moving average at any stage. It steps inside `backward`, before the callback that takes the
    average, so ZeRO-1 and 2 would be right in float32. But with bf16 the module has only rounded copies of the weights,
    in which an average does not move; and DeepSpeed resumes by a way of its own, past `_load_from_checkpoint`.

    Args:
        final_weights: as in the arguments.
        engine: what accelerate trains with.
        zero_stage: DeepSpeed's; 3 divides the weights.

    Raises:
        ValueError: the engine and these final weights do not go together.
    """
    divides = engine in (DistributedType.FSDP, DistributedType.MEGATRON_LM) or zero_stage == 3
    if (final_weights in ("average", "ema") and divides) or (
        final_weights == "ema" and engine == DistributedType.DEEPSPEED
    ):
        raise ValueError(
            f"final_weights={final_weights} needs the whole weights, in full precision, which {engine.value} does not "
            "leave in the model; use last or best, and `vanilla-transformer average` afterwards"
        )


@torch.no_grad()
def _copy(weights: dict[str, torch.Tensor], model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
