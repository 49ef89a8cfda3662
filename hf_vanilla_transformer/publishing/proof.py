"""The proof that a self-contained folder works where this package is not: other interpreters load it and translate."""

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..translation_pipeline import TranslationPipeline
from . import proof_program

# Seconds for one interpreter: it imports torch, loads a model several times, and translates a few sentences.
TIME_LIMIT = 1800

# Settings of this process that would bring files, code or secrets of this machine into the proof.
_FOREIGN = ("HF_", "HUGGING", "TRANSFORMERS_", "PYTHON", "VIRTUAL_ENV", "PYTORCH_TRANSFORMERS")


def environment_of_proof(*more: str) -> dict[str, str]:
    """The variables of this process but those that would bring files, code or secrets of this machine into a proof.

    Args:
        *more: beginnings of the names of others that are left out.
    """
    return {key: value for key, value in os.environ.items() if not key.startswith((*_FOREIGN, *more))}


@dataclass(frozen=True)
class Proof:
    """What an interpreter has proven.

    Args:
        interpreter: how it is called in messages, such as "this interpreter".
        python: its version.
        torch: its version.
        transformers: its version.
        was_hidden: whether the package is installed there and was only hidden.
    """

    interpreter: str
    python: str
    torch: str
    transformers: str
    was_hidden: bool

    def __str__(self) -> str:
        package = "the package hidden" if self.was_hidden else "without the package"
        versions = f"transformers {self.transformers}, torch {self.torch}, Python {self.python}"
        return f"{versions} ({self.interpreter}, {package})"


def expected_translations(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str]
) -> list[dict[str, str]]:
    """Translates with the model in this process, by `generate()` and by the pipeline.

    Args:
        model: in eval mode.
        tokenizer: its tokenizer.
        sentences: text.

    Returns:
        For each sentence, its translations by the names `generate` and `pipeline`.
    """
    translator = TranslationPipeline(model=model, tokenizer=tokenizer, device=model.device)
    return proof_program.translate_both_ways(model, tokenizer, translator, list(sentences))


def prove_folder(
    folder: str | Path,
    sentences: Sequence[str],
    expected: Sequence[dict[str, str]],
    python: str | Path = sys.executable,
    name: str = "this interpreter",
    version: str | None = None,
) -> Proof:
    """Lets an interpreter without the package load a folder and translate, without a network or a cache.

    Args:
        folder: what `save_self_contained` wrote.
        sentences: text to translate.
        expected: what `expected_translations` gave for them.
        python: the interpreter; where the package is installed in it, the package is hidden.
        name: what to call it.
        version: of transformers, which it is to have, or the beginning of one, such as 5.18; None for any.

    Returns:
        The versions that it was proven with.

    Raises:
        ValueError: the interpreter cannot be run or has another transformers, the folder does not load there, or
            translates differently. The message is one line.
    """
    environment = environment_of_proof()
    with tempfile.TemporaryDirectory() as scratch:
        request, answer = Path(scratch) / "request.json", Path(scratch) / "answer.json"
        request.write_text(json.dumps({"folder": str(Path(folder).resolve()), "sentences": list(sentences)}))
        environment.update(HF_HOME=str(Path(scratch) / "home"), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
        # Isolated (-I): no PYTHONPATH, no packages of the user, no modules of the working directory.
        program = os.path.abspath(python) if os.path.dirname(python) else str(python)  # a link stays one: of a venv
        command = [program, "-I", "-B", os.path.abspath(proof_program.__file__), str(request), str(answer)]
        try:
            done = subprocess.run(
                command, cwd=scratch, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", timeout=TIME_LIMIT, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ValueError(f"{name} ({python}) proves nothing: {error}") from error
        if done.returncode != 0 or not answer.exists():
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}, without a message"]
            raise ValueError(f"on {name} the folder does not work: {textwrap.shorten(lines[-1], 500)}")
        found = json.loads(answer.read_text(encoding="utf-8"))
    translations = found.pop("translations")
    proof = Proof(interpreter=name, **found)
    if version is not None and not f"{proof.transformers}.".startswith(f"{version}."):
        raise ValueError(f"{python} has transformers {proof.transformers} and not {version}; remove its environment")
    for sentence, here, there in zip(sentences, expected, translations, strict=True):
        for way, text in here.items():
            if there[way] != text:
                raise ValueError(
                    f"on {proof} the {way} translation of {sentence!r} is {there[way]!r}, but in this process {text!r}"
                )
    return proof
