"""Export a trained model to another system: CTranslate2, ONNX or torch.export."""

import argparse
import sys
from pathlib import Path

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from ..interop import export_ctranslate2, export_onnx, export_torch

EXAMPLES = """
examples:
  python scripts/export.py --model runs/en-de --to ctranslate2 --quantization int8 --output_dir runs/en-de-ct2
  python scripts/export.py --model runs/en-de --to onnx --output_dir runs/en-de-onnx
  python scripts/export.py --model runs/en-de --to torch --output_dir runs/en-de-pt2
"""


def main() -> int:
    """Reads the options, exports, and lists the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder (or Hub name) of a trained model and its tokenizer")
    parser.add_argument("--to", required=True, choices=["ctranslate2", "onnx", "torch"], help="the other system")
    parser.add_argument("--output_dir", required=True, help="folder to write")
    parser.add_argument("--quantization", default="float32", help="ctranslate2: float32 or int8 (default: %(default)s)")
    parser.add_argument(
        "--max_positions", type=int, default=1024, help="ctranslate2: longest input and output (default: %(default)s)"
    )
    parser.add_argument("--target_tokenizer", help="ctranslate2: folder, where the target has its own vocabulary")
    args = parser.parse_args()
    try:
        model = AutoModelForSeq2SeqLM.from_pretrained(args.model, trust_remote_code=False)
        if args.to == "ctranslate2":
            tokenizer, target = (
                AutoTokenizer.from_pretrained(folder, trust_remote_code=False) if folder else None
                for folder in (args.model, args.target_tokenizer)
            )
            export_ctranslate2(model, tokenizer, args.output_dir, args.quantization, args.max_positions, target)
        else:
            {"onnx": export_onnx, "torch": export_torch}[args.to](model, args.output_dir)
    except (ImportError, OSError, ValueError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    for path in sorted(Path(args.output_dir).iterdir()):
        print(f"{path.stat().st_size:>12,} bytes  {path}")
    return 0
