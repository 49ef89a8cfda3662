"""Convert a checkpoint of another system to a folder of this package."""

import argparse
import sys

from ..interop import convert_fairseq, convert_marian, convert_torch_transformer
from ..training.model_setup import parse_overrides

EXAMPLES = """
examples:
  python scripts/convert.py marian opus-mt-en-de --output_dir runs/opus-en-de
  python scripts/convert.py fairseq best.pt --source_dictionary dict.en.txt --target_dictionary dict.de.txt \\
      --sentencepiece_model spm.model --output_dir runs/fairseq-en-de
  python scripts/convert.py torch state.pt --num_heads 8 --source_embedding src_embed.weight \\
      --target_embedding tgt_embed.weight --projection generator.weight --set norm_position=pre --output_dir runs/mine

What does not fit is refused with every name and shape that differs. --set changes what a checkpoint does not say: any
field of the configuration.
"""


def main() -> int:
    """Reads the options, converts, and says what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("system", choices=["marian", "fairseq", "torch"], help="where the checkpoint comes from")
    parser.add_argument("checkpoint", help="marian: a folder; the others: a file")
    parser.add_argument("--output_dir", required=True, help="folder to write")
    parser.add_argument("--source_dictionary", metavar="FILE", help="fairseq: dict.txt of the source")
    parser.add_argument(
        "--target_dictionary", metavar="FILE", help="fairseq: dict.txt of the target (default: the same)"
    )
    parser.add_argument("--sentencepiece_model", metavar="FILE", help="fairseq: what cuts text into those tokens")
    parser.add_argument("--num_heads", type=int, help="torch: heads; fairseq: if the file does not say")
    parser.add_argument("--source_embedding", metavar="NAME", help="torch: name of the tensor")
    parser.add_argument("--target_embedding", metavar="NAME", help="torch: likewise (default: that of the source)")
    parser.add_argument(
        "--projection", metavar="NAME", help="torch: pre-softmax matrix (default: the target embedding)"
    )
    parser.add_argument("--prefix", default="transformer.", help="torch: names begin with this (default: %(default)r)")
    parser.add_argument(
        "--ignored", default="(?!)", metavar="REGEX", help="torch: names of tensors that are no weights"
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="fields of the configuration")
    args = parser.parse_args()
    needed = {"marian": (), "fairseq": ("source_dictionary",), "torch": ("num_heads", "source_embedding")}[args.system]
    if missing := [name for name in needed if getattr(args, name) is None]:
        parser.error(f"{args.system} needs --{' and --'.join(missing)}")
    try:
        fields = parse_overrides(args.set)
        if args.num_heads is not None:
            fields["num_heads"] = args.num_heads
        if args.system == "marian":
            model = convert_marian(args.checkpoint, args.output_dir)
        elif args.system == "fairseq":
            files = (args.source_dictionary, args.target_dictionary, args.sentencepiece_model)
            model = convert_fairseq(args.checkpoint, args.output_dir, *files, **fields)
        else:
            names = ("source_embedding", "target_embedding", "projection", "prefix", "ignored")
            options = {name: getattr(args, name) for name in names}
            model = convert_torch_transformer(args.checkpoint, args.output_dir, **options, **fields)
    except (OSError, ValueError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    print(f"Converted: {sum(parameter.numel() for parameter in model.parameters()):,} parameters")
    print(f"Saved in:  {args.output_dir}")
    return 0
