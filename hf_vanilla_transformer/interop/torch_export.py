"""Out: programs of `torch.export`, which run without the code of this package."""

from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from .graphs import inference_graphs


def exported_programs(model: VanillaTransformerForConditionalGeneration) -> dict[str, ExportedProgram]:
    """Exports the encoder and the cached decoder, with batch and lengths of any size.

    Args:
        model: left as it is.

    Returns:
        The programs "encoder" and "decoder"; `interop.graphs` describes what they take and return.
    """
    return {
        name: torch.export.export(graph.module, graph.arguments, dynamic_shapes=_free(graph.dynamic_axes))
        for name, graph in inference_graphs(model).items()
    }


def export_torch(model: VanillaTransformerForConditionalGeneration, folder: str | Path) -> None:
    """Writes `encoder.pt2` and `decoder.pt2`, for `torch.export.load`.

    Args:
        model: left as it is.
        folder: made where there is none.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, program in exported_programs(model).items():
        torch.export.save(program, Path(folder) / f"{name}.pt2")


def _free(axes: Any) -> Any:
    """Names of axes as torch's sizes that are not fixed; two axes of one name are found to be equal by torch."""
    if isinstance(axes, dict):
        return dict.fromkeys(axes, Dim.DYNAMIC)
    return tuple(_free(each) for each in axes)
