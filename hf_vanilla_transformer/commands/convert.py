"""Convert a checkpoint or tokenizer of another system to a folder of this package."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..inference.one_line_parser import OneLineParser
from ..interop import (
    convert_fairseq,
    convert_folder,
    convert_marian,
    convert_sentencepiece,
    convert_torch_transformer,
)
from ..training.config_overrides import parse_overrides

EXAMPLES = """
examples:
  vanilla-transformer convert marian opus-mt-en-de --output_dir runs/opus-en-de
  vanilla-transformer convert bert bert-base-uncased --output_dir runs/bert
  vanilla-transformer convert gpt2 gpt2-medium --output_dir runs/gpt2
  vanilla-transformer convert fairseq best.pt --source_dictionary dict.en.txt --target_dictionary dict.de.txt \\
      --sentencepiece_model spm.model --output_dir runs/fairseq-en-de
  vanilla-transformer convert torch state.pt --num_heads 8 --source_embedding src_embed.weight \\
      --target_embedding tgt_embed.weight --projection generator.weight --set norm_position=pre --output_dir runs/mine
  vanilla-transformer convert sentencepiece spm.model --output_dir runs/tokenizer

A checkpoint that does not fit is refused with the names and shapes that differ. No code of a checkpoint is run: a
pickled file may hold tensors and plain values only. The output folder appears when all is done, or not at all.
"""


FOLDERS = {
    "bert": "BERT, with or without a head",
    "gpt2": "GPT-2",
    "llama": "LLaMA, with unscaled rotary positions",
}


def make_parser(prog: str | None = None) -> OneLineParser:
    """Describes the options, each with the systems that it is for."""
    parser = OneLineParser(prog=prog, description=__doc__, epilog=EXAMPLES)
    systems = parser.add_subparsers(dest="system", required=True, metavar="SYSTEM", help="where it comes from:")
    output = OneLineParser(add_help=False)
    output.add_argument("--output_dir", required=True, help="folder to write; must be free or empty")
    output.add_argument("--overwrite", action="store_true", help="replace an earlier conversion in --output_dir")
    fields = OneLineParser(add_help=False)
    fields.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="FIELD=VALUE",
        help="fields of the configuration",
    )

    marian = systems.add_parser("marian", parents=[output], help="a folder of Marian or OPUS-MT")
    marian.add_argument("checkpoint", metavar="FOLDER", help="has config.json, weights, vocab.json and *.spm in it")

    for kind, what in FOLDERS.items():
        folder = systems.add_parser(kind, parents=[output], help=f"a folder of {what}")
        folder.add_argument(
            "checkpoint", metavar="FOLDER", help="has config.json and weights in it, and maybe a tokenizer"
        )

    fairseq = systems.add_parser("fairseq", parents=[output, fields], help="a .pt file of fairseq")
    fairseq.add_argument("checkpoint", metavar="FILE", help="the checkpoint")
    fairseq.add_argument("--source_dictionary", required=True, metavar="FILE", help="dict.txt of the source")
    fairseq.add_argument("--target_dictionary", metavar="FILE", help="dict.txt of the target (default: the same)")
    fairseq.add_argument("--sentencepiece_model", metavar="FILE", help="what cuts text into its tokens")
    fairseq.add_argument("--num_heads", type=int, help="attention heads, if the file does not say")

    torch = systems.add_parser("torch", parents=[output, fields], help="the state_dict of a torch.nn.Transformer")
    torch.add_argument("checkpoint", metavar="FILE", help="what torch.save(model.state_dict(), FILE) wrote")
    torch.add_argument("--num_heads", type=int, required=True, help="attention heads (nhead)")
    torch.add_argument("--source_embedding", required=True, metavar="NAME", help="name of the tensor")
    torch.add_argument("--target_embedding", metavar="NAME", help="likewise (default: the source embedding)")
    torch.add_argument("--projection", metavar="NAME", help="pre-softmax matrix (default: the target embedding)")
    torch.add_argument("--prefix", default="transformer.", help="what names begin with (default: %(default)r)")
    torch.add_argument("--ignored", default="(?!)", metavar="REGEX", help="names of tensors that are not weights")

    pieces = systems.add_parser("sentencepiece", parents=[output], help="a .model or .spm file: only a tokenizer")
    pieces.add_argument("checkpoint", metavar="FILE", help="unigram or BPE; the folder is a --tokenizer_name_or_path")
    return parser


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Reads the options, converts, and says what came out.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what the help calls the program; None for the name of the script.

    Returns:
        The exit status: 0, 2 for options or files that cannot be used, 130 after Ctrl-C.
    """
    parser = make_parser(prog)
    options = vars(parser.parse_args(argv))
    system = options.pop("system")
    converters: dict[str, Callable[..., Any]] = {
        "marian": convert_marian, "fairseq": convert_fairseq, "torch": convert_torch_transformer,
        "sentencepiece": convert_sentencepiece, **{kind: partial(convert_folder, kind) for kind in FOLDERS},
    }  # fmt: skip
    try:
        fields = parse_overrides(options.pop("set", []))
        if taken := sorted(fields.keys() & options.keys()):
            raise ValueError(f"--set {taken[0]}=...: there is an option for it, --{taken[0]}")
        if options.get("num_heads", 0) is None:
            del options["num_heads"]
        made = converters[system](**options, **fields)
    except KeyboardInterrupt:
        return 130
    except (ImportError, OSError, ValueError) as error:
        print(f"{parser.prog} {system}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if system == "sentencepiece":
        print(f"Converted: {len(made):,} tokens")
    else:
        print(f"Converted: {sum(parameter.numel() for parameter in made.parameters()):,} parameters")
    print(f"Saved in:  {options['output_dir']}")
    return 0
