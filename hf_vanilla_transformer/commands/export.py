"""Export a trained model to another system: CTranslate2, ONNX or torch.export."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..inference import load_translator
from ..inference.one_line_parser import OneLineParser
from ..inference.shipped import place_of_model
from ..interop import TARGET_TOKENIZER, export_ctranslate2, export_onnx, export_torch

EXAMPLES = """
examples:
  vanilla-transformer export --model runs/en-de --to ctranslate2 --quantization int8 --output_dir runs/en-de-ct2
  vanilla-transformer export --model runs/en-de --to onnx --output_dir runs/en-de-onnx
  vanilla-transformer export --model runs/en-de --to torch --output_dir runs/en-de-pt2

The output folder has the tokenizer in it; for onnx and torch also README.md, which describes the graphs, and
translate.py, which translates with them and without this package. It appears when all is done, or not at all.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads the options, exports, and lists the files.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what the help calls the program; None for the name of the script.

    Returns:
        The exit status: 0, 2 for options or files that cannot be used, 130 after Ctrl-C.
    """
    parser = OneLineParser(prog=prog, description=__doc__, epilog=EXAMPLES)
    parser.add_argument("--model", required=True, help="folder of a trained model and its tokenizer; or the name of a "
        "checkpoint of model_cards, or of the Hub")  # fmt: skip
    parser.add_argument("--to", required=True, choices=["ctranslate2", "onnx", "torch"], help="the other system")
    parser.add_argument("--output_dir", required=True, help="folder to write; must be free or empty")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export in --output_dir")
    parser.add_argument("--quantization", help="ctranslate2: float32 or int8 (default: float32)")
    parser.add_argument("--max_positions", type=int, help="ctranslate2: longest input and output (default: 1024)")
    parser.add_argument(
        "--target_tokenizer",
        help="folder, where the target has its own vocabulary (default: the sub-folder target_tokenizer of --model)",
    )
    args = parser.parse_args(argv)
    options = {name: getattr(args, name) for name in ("quantization", "max_positions")}
    options = {name: value for name, value in options.items() if value is not None}
    if options and args.to != "ctranslate2":
        parser.error(f"--{next(iter(options))} has no effect with --to {args.to}; leave it out")
    try:
        model, tokenizer = load_translator([args.model], "cpu")
        target_folder = args.target_tokenizer
        if target_folder is None and getattr(model.config, "source_vocab_size", None) is not None:
            place = place_of_model(args.model)
            if not Path(place).is_dir():  # on the Hub
                place = snapshot_download(str(place), allow_patterns=f"{TARGET_TOKENIZER}/*")
            target_folder = Path(place) / TARGET_TOKENIZER
        target = _load_target_tokenizer(target_folder) if target_folder else None
        exporters: dict[str, Callable[..., None]] = {
            "ctranslate2": export_ctranslate2, "onnx": export_onnx, "torch": export_torch,
        }  # fmt: skip
        export = exporters[args.to]
        export(model, folder=args.output_dir, tokenizer=tokenizer, target_tokenizer=target, overwrite=args.overwrite,
               **options)  # fmt: skip
    except KeyboardInterrupt:
        return 130
    except (ImportError, OSError, ValueError) as error:
        print(f"{parser.prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    for path in sorted(path for path in Path(args.output_dir).rglob("*") if path.is_file()):
        print(f"{path.stat().st_size:>12,} bytes  {path}")
    return 0


def _load_target_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: has no tokenizer of the target; give its folder: --target_tokenizer") from error
