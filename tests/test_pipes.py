"""Programs in pipes: what they end with, whatever stops them."""

import signal
import sys
from pathlib import Path
from subprocess import PIPE

import pytest
from child_processes import start

from hf_vanilla_transformer.inference import pipes, run_as_filter

PROGRAM = """
import sys
from pipes import run_as_filter
def work():
    print("ready", flush=True)
    for line in sys.stdin:
        print(line * 100)
sys.exit(run_as_filter(work, "program"))
"""


@pytest.fixture
def process():
    """In the folder of the module, which needs nothing of the package: importing that would take seconds."""
    command, folder = [sys.executable, "-c", PROGRAM], Path(pipes.__file__).parent
    with start(command, cwd=folder, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        yield process


def test_a_closed_pipe_is_no_error_to_talk_about(process):
    process.stdout.close()
    process.stdin.write(b"words\n")  # stays in the buffer until the end: that flush is the one that fails
    process.stdin.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_an_interrupt_is_said_in_a_line(process):
    process.send_signal(signal.SIGINT)
    assert process.stderr.read() == b"program: interrupted\n"
    assert process.wait() == 130


def test_what_is_wrong_is_said_after_what_was_done(capfd):
    def work():
        print("done so far")
        raise ValueError("line 3 is no good")

    assert run_as_filter(work, "program") == 2
    output = capfd.readouterr()
    assert output.out == "done so far\n"
    assert output.err == "program: error: line 3 is no good\n"
    assert run_as_filter(lambda: print("all"), "program") == 0
    assert capfd.readouterr().out == "all\n"
