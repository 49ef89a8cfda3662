"""Out: ONNX graphs of the encoder and of the cached decoder, and how to translate with them."""

import warnings
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from .graph_folder import add_companions, require_exportable
from .graphs import inference_graphs
from .output_folder import OF_GRAPHS, output_folder


def export_onnx(
    model: VanillaTransformerForConditionalGeneration,
    folder: str | Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    target_tokenizer: PreTrainedTokenizerBase | None = None,
    overwrite: bool = False,
) -> None:
    """Writes `encoder.onnx` and `decoder.onnx`, with batch and lengths of any size, and all that is needed to use them.

    The encoder gives keys and values of the source, which the decoder takes at each step as `cross_key.0`, ... . The
    decoder gives logits and `present_key.0`, ..., to be passed as `past_key.0`, ... at the next step; at the first
    these have length 0. The folder has the configs, the tokenizer, a README.md with names and shapes, and
    `translate.py`, which translates with onnxruntime and without this package.

    Args:
        model: left as it is.
        folder: must be free or empty.
        tokenizer: of the source, and of the target where there is one vocabulary; without it the folder has neither
            tokenizer nor `translate.py`.
        target_tokenizer: of the target, where it has a vocabulary of its own.
        overwrite: whether an earlier export in `folder` may be replaced.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        OSError: `folder` has files in it, or is that of the model.
        ValueError: the model is not of this package, or has adapters; or the tokenizer of the target is missing.
    """
    try:
        import onnx  # noqa: F401  torch imports them late, with a message that does not say what to do
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError("exporting to ONNX needs two packages: pip install onnx onnxscript") from error
    require_exportable(model)
    with output_folder(folder, overwrite, source=model.name_or_path, own=OF_GRAPHS) as written:
        add_companions(model, written, "onnx", tokenizer, target_tokenizer)
        for name, graph in inference_graphs(model).items():
            with warnings.catch_warnings():
                # Axes that share a name are meant to be one axis.
                warnings.filterwarnings("ignore", message=".*The axis name: .* will not be used")
                torch.onnx.export(
                    graph.module,
                    graph.arguments,
                    str(written / f"{name}.onnx"),
                    input_names=graph.input_names,
                    output_names=graph.output_names,
                    dynamic_shapes=graph.dynamic_axes,
                    dynamo=True,
                    external_data=False,
                    verbose=False,
                )
