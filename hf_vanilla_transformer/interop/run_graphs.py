"""Translate lines of text, given as arguments or on standard input, with the graphs in the folder of this file.

Needs `tokenizers`, and onnxruntime with numpy (for *.onnx) or torch (for *.pt2); nothing else. It is an example to
start from: greedy search, one sentence at a time. See README.md in the same folder.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

FOLDER = Path(__file__).resolve().parent


def load_graph(name: str) -> tuple[Callable[..., Any], Callable[[Any], Any]]:
    """Loads one graph by the runtime that it was exported for.

    Args:
        name: "encoder" or "decoder".

    Returns:
        The graph as a function of its inputs, and a function that makes an input of a list of token ids.
    """
    if (FOLDER / f"{name}.onnx").exists():
        import numpy as np
        import onnxruntime

        session = onnxruntime.InferenceSession(str(FOLDER / f"{name}.onnx"), providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_inputs()]

        def run(ids: Any, mask: Any, cross: Sequence[Any] = (), past: Sequence[Any] = ()) -> Any:
            return session.run(None, dict(zip(names, [ids, mask, *cross, *past], strict=True)))

        return run, lambda ids: np.array([ids], dtype=np.int64)

    import torch

    program = torch.export.load(FOLDER / f"{name}.pt2").module()

    def call(ids: Any, mask: Any, cross: Sequence[Any] = (), past: Sequence[Any] = ()) -> Any:
        groups = [tuple(group) for group in (cross, past) if group]
        with torch.no_grad():
            return program(ids, mask, *groups)

    return call, lambda ids: torch.tensor([ids])


def longest(settings: dict[str, Any], positions: int | None, source_length: int) -> int:
    """How many tokens a translation may have, by generation_config.json and the positions of the model.

    Args:
        settings: the content of the file.
        positions: learned positions of the model; None for no limit.
        source_length: tokens of the source, its end included.

    Returns:
        The number, without the token that starts the decoder.
    """
    if settings.get("max_new_tokens") is not None:
        limit = settings["max_new_tokens"]
    elif settings.get("max_length") is not None:
        limit = settings["max_length"] - 1
    else:
        extra = settings.get("max_extra_tokens")
        limit = source_length + (50 if extra is None else extra)
    return limit if positions is None else max(1, min(limit, positions - 1))  # the token that starts has one too


def forbidden(settings: dict[str, Any]) -> list[int]:
    """The tokens that are never written, by generation_config.json.

    Args:
        settings: its content.

    Returns:
        Their ids.
    """
    single = [ids[0] for ids in settings.get("bad_words_ids") or () if len(ids) == 1]
    return [*single, *(settings.get("suppress_tokens") or ())]


def main() -> None:
    """Translates what the command line or standard input gives, up to a source of more tokens than positions."""
    settings = json.loads((FOLDER / "generation_config.json").read_text(encoding="utf-8"))
    positions = json.loads((FOLDER / "config.json").read_text(encoding="utf-8")).get("num_learned_positions")
    target = FOLDER / "target_tokenizer" / "tokenizer.json"
    source_tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    target_tokenizer = Tokenizer.from_file(str(target)) if target.exists() else source_tokenizer
    ends = settings["eos_token_id"] if isinstance(settings["eos_token_id"], list) else [settings["eos_token_id"]]
    never = forbidden(settings)
    (encoder, as_input), (decoder, _) = load_graph("encoder"), load_graph("decoder")
    for number, line in enumerate(sys.argv[1:] or sys.stdin, start=1):
        source = source_tokenizer.encode(line.rstrip("\n")).ids
        if positions is not None and len(source) > positions:
            sys.exit(f"error: line {number} has {len(source)} tokens, but the model has {positions} positions; cut it")
        mask = as_input([1] * len(source))  # 0 would mark padding
        cross = encoder(as_input(source), mask)
        past = [tensor[:, :, :0] for tensor in cross]  # keys and values of no token yet
        tokens = [settings["decoder_start_token_id"]]
        limit = longest(settings, positions, len(source))
        # The token that starts may be one that ends.
        while len(tokens) <= limit and (len(tokens) == 1 or tokens[-1] not in ends):
            logits, *past = decoder(as_input(tokens[-1:]), mask, cross, past)
            scores = logits[0, -1]
            if never:
                scores[never] = -float("inf")
            tokens.append(int(scores.argmax()))
        print(target_tokenizer.decode(tokens[1:], skip_special_tokens=True))


if __name__ == "__main__":
    main()
