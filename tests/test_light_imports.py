"""What is not needed is not imported: no trainer to translate, and no plots and no `evaluate` library to score."""

import json
import subprocess
import sys

import pytest

HEAVY = ["hf_vanilla_transformer.training", "evaluate", "matplotlib", "tensorboard", "peft", "sacremoses"]


@pytest.fixture(scope="module")
def imported():
    """The modules that a program has which imports all that translates, scores and evaluates."""
    names = ["data", "inference", "evaluation", "commands.translate", "commands.score", "commands.evaluate"]
    program = "\n".join(
        [
            *(f"import hf_vanilla_transformer.{name}" for name in names),
            "import json, sys",
            "print(json.dumps([*sys.modules]))",
        ]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", HEAVY)
def test_translating_and_scoring_do_not_import(imported, name):
    assert "hf_vanilla_transformer.commands.evaluate" in imported
    assert name not in imported
