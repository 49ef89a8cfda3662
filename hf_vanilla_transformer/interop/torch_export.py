"""Out: programs of `torch.export`, which run without the code of this package."""

from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from transformers import PreTrainedTokenizerBase

from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from .graph_folder import add_companions, require_exportable
from .graphs import inference_graphs
from .output_folder import OF_GRAPHS, output_folder


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


def export_torch(
    model: VanillaTransformerForConditionalGeneration,
    folder: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    target_tokenizer: PreTrainedTokenizerBase | None = None,
    overwrite: bool = False,
) -> None:
    """Writes `encoder.pt2` and `decoder.pt2`, for `torch.export.load`, and all that is needed to use them.

    The folder has the configs, the tokenizer, a README.md with shapes, and `translate.py`, which translates with torch
    and without this package.

    Args:
        model: left as it is.
        folder: must be free or empty.
        tokenizer: of the source, and of the target where there is one vocabulary; without it the folder has neither
            tokenizer nor `translate.py`.
        target_tokenizer: of the target, where it has a vocabulary of its own.
        overwrite: whether an earlier export in `folder` may be replaced.

    Raises:
        OSError: `folder` has files in it, or is that of the model.
        ValueError: the model is not of this package, or has adapters; or the tokenizer of the target is missing.
    """
    require_exportable(model)
    with output_folder(folder, overwrite, source=model.name_or_path, own=OF_GRAPHS) as written:
        add_companions(model, written, "pt2", tokenizer, target_tokenizer)
        for name, program in exported_programs(model).items():
            torch.export.save(program, written / f"{name}.pt2")


def _free(axes: Any) -> Any:
    """Replaces names of axes by torch's dynamic sizes; torch itself finds out which axes are equal."""
    if isinstance(axes, dict):
        return dict.fromkeys(axes, Dim.DYNAMIC)
    return tuple(_free(each) for each in axes)
