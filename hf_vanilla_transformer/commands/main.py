"""The installed command: `vanilla-transformer VERB ...`, a verb for each module beside this one.

Imports nothing but the standard library, so that help and mistyped verbs are answered at once.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence

PROGRAM = "vanilla-transformer"

# Verb: the module whose `main` it runs, and what it does.
VERBS = {
    "quickstart": ("quickstart", "train a small model to read dates, in about a minute, without data"),
    "train-tokenizer": ("train_tokenizer", "learn one vocabulary for source and target language"),
    "pretrain": ("pretrain", "train a model from scratch, by a recipe or by options"),
    "finetune": ("finetune", "train a model further: new text, frozen parts, adapters, new tokens"),
    "queue": ("queue", "work through a list of runs, one after the other"),
    "translate": ("translate", "translate sentences, a file or standard input"),
    "serve": ("serve", "serve trained models over HTTP: batching, streaming, LibreTranslate's fields"),
    "demo": ("demo", "show a page of a model's beam search and attention, live in a browser"),
    "score": ("score", "say how probable a model finds given translations"),
    "evaluate": ("evaluate", "compute BLEU, chrF, TER, error rates and perplexity, and compare systems"),
    "tune": ("tune", "choose length penalty and beams on a validation set"),
    "average": ("average", "average the last checkpoints of a run into one model"),
    "convert": ("convert", "import Marian, fairseq, torch.nn.Transformer, BERT, GPT-2, LLaMA or SentencePiece"),
    "export": ("export", "export a model to CTranslate2, ONNX or torch.export"),
    "visualize": ("visualize", "show what each attention head looks at, as pictures or a page"),
    "release": ("release", "make the folder of a checkpoint from finished runs: card, scores, recipe"),
    "publish": ("publish", "put a model on the Hub with its code, after a proof that it loads by itself"),
    "plan": ("plan", "estimate work, memory and time of a run before it is started"),
    "benchmark": ("benchmark", "compare speed and memory with other implementations"),
    "lab-stages": ("lab_stages", "build the Transformer part by part on zeros and ones"),
    "lab-recurrent": ("lab_recurrent", "compare recurrent models with the Transformer: BLEU by length, speed"),
    "lab-gradients": ("lab_gradients", "measure the gradient that reaches the first position, by length"),
    "lab-ablations": ("lab_ablations", "repeat the paper's Table 3 at a small size: what is each part for?"),
    "lab-variants": ("lab_variants", "put trained variants side by side: scores, speed, what decoding keeps"),
    "lab-heads": ("lab_heads", "show what each attention head looks at, and what is lost without it"),
    "lab-complexity": ("lab_complexity", "measure time and memory of layers over the length: Table 1 of the paper"),
    "lab-long": ("lab_long", "copy and retrieve over long sequences by full, windowed and linear attention"),
    "lab-inputs": ("lab_inputs", "forecast series, and read handwritten digits as words: sources without tokens"),
    "lab-speculative": ("lab_speculative", "measure speculative decoding: what a draft saves, or does not"),
    "lab-scan": ("lab_scan", "length generalisation on SCAN: split it, and see which lengths a model has right"),
}

EXAMPLES = """
examples:
  vanilla-transformer quickstart
  vanilla-transformer translate --model g2p-15-languages "<fre> bonjour"
  vanilla-transformer pretrain multi30k-en-de-tiny --num_train_epochs 10
  vanilla-transformer translate --model runs/multi30k-en-de-tiny "A dog runs."
  torchrun --nproc-per-node 8 -m hf_vanilla_transformer pretrain wmt14-en-de-base

`vanilla-transformer VERB --help` explains a verb. `python -m hf_vanilla_transformer VERB` is the same command.
"""


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs the verb that the first word names, on the words after it.

    Args:
        argv: the words after the program's name; None for those of this process.
        prog: what to call the program in messages; None for its name.

    Returns:
        The exit status of the verb; 2 for an unknown one, 130 after Ctrl-C.
    """
    program = prog or PROGRAM
    words = sys.argv[1:] if argv is None else list(argv)
    if not words or words[0] in ("-h", "--help"):
        print(describe_verbs(program), end="", file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] == "--version":
        print(importlib.import_module("hf_vanilla_transformer").__version__)
        return 0
    verb, *rest = words
    if verb not in VERBS:
        close = difflib.get_close_matches(verb.replace("_", "-"), VERBS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"the verbs are {', '.join(VERBS)}"
        print(f"{program}: error: unknown verb {verb!r}; {hint}", file=sys.stderr)
        return 2
    try:
        module = importlib.import_module(f"hf_vanilla_transformer.commands.{VERBS[verb][0]}")
        return module.main(rest, f"{program} {verb}")
    except KeyboardInterrupt:  # before the verb itself listens: importing torch takes a while
        print(f"{program} {verb}: interrupted", file=sys.stderr)
        return 130


def describe_verbs(program: str = PROGRAM) -> str:
    """Writes what `--help` shows.

    Args:
        program: what to call the program.

    Returns:
        Usage, a line for each verb, and examples.
    """
    lines = [
        f"usage: {program} VERB [...]",
        "",
        'The Transformer of "Attention Is All You Need", from text to translations.',
    ]
    lines += ["", "verbs:", *(f"  {verb:17}{text}" for verb, (_, text) in VERBS.items())]
    return "\n".join(lines) + "\n" + EXAMPLES
