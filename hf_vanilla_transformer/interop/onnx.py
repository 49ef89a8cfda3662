"""Out: ONNX graphs of the encoder and of the cached decoder, and how to translate with them."""

import warnings
from pathlib import Path

import torch

from ..modeling_vanilla_transformer import VanillaTransformerForConditionalGeneration
from .graphs import inference_graphs


def export_onnx(model: VanillaTransformerForConditionalGeneration, folder: str | Path) -> None:
    """Writes `encoder.onnx` and `decoder.onnx`, with batch and lengths of any size.

    The encoder gives keys and values of the source, which the decoder takes at each step as `cross_key.0`, ... . The
    decoder gives logits and `present_key.0`, ..., to be passed as `past_key.0`, ... at the next step; at the first
    these have length 0.

    Args:
        model: left as it is.
        folder: made where there is none.

    Raises:
        ImportError: onnx or onnxscript is not installed.
    """
    try:
        import onnx  # noqa: F401  torch imports them late, with a message that does not say what to do
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError("exporting to ONNX needs two packages: pip install onnx onnxscript") from error
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, graph in inference_graphs(model).items():
        with warnings.catch_warnings():
            # That axes of one name are one axis is meant.
            warnings.filterwarnings("ignore", message=".*The axis name: .* will not be used")
            torch.onnx.export(
                graph.module,
                graph.arguments,
                str(Path(folder) / f"{name}.onnx"),
                input_names=graph.input_names,
                output_names=graph.output_names,
                dynamic_shapes=graph.dynamic_axes,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
