"""What the tests of commands share: a tiny translator on the disk, and a way to run a command in this process."""

import contextlib
import io
import sys

import pytest
from test_pair_scores import build

from hf_vanilla_transformer.data import train_tokenizer


class Done:
    """What a command left behind."""

    def __init__(self, returncode, stdout, stderr):
        self.returncode, self.stdout, self.stderr = returncode, stdout, stderr

    @property
    def error(self):
        """The message of a command that refused something, which is to be one line."""
        lines = self.stderr.strip().splitlines()
        assert self.returncode == 2, self.stderr
        assert "Traceback" not in self.stderr
        message = lines[-1]
        assert ": error: " in message
        # argparse writes a usage before its message.
        assert len(lines) == 1 or lines[0].startswith("usage: "), self.stderr
        return message.split(": error: ", 1)[1]


def run(main, *options, stdin=b""):
    """Runs the `main` of a command in this process, which spares it importing torch again."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            try:
                returncode = main([str(option) for option in options], prog="program")
            except SystemExit as exit:
                returncode = exit.code
    return Done(returncode, stdout.getvalue(), stderr.getvalue())


def save_translator(folder, max_extra_tokens=None, **fields):
    """Writes a tiny untrained model and its tokenizer, and returns both; `max_extra_tokens` shortens translations."""
    tokenizer = train_tokenizer(texts=["a b c", "A B C"], vocab_size=262)
    model = build(tokenizer, **fields)
    if max_extra_tokens is not None:
        model.generation_config.max_extra_tokens = max_extra_tokens
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.eval(), tokenizer
