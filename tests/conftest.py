"""What all tests share: no network, the real text that may stand beside the project, no work that proves nothing."""

import contextlib
import gc
import logging
import os
import sys
from pathlib import Path
from unittest import mock

# Before any Hugging Face library is imported: they read these once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import hypothesis
import pytest
import torch

# The same examples on every run, and as much time for them as a busy machine needs.
hypothesis.settings.register_profile(
    "everywhere",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("everywhere")

MULTI30K = Path(__file__).resolve().parents[2] / "shared" / "data" / "multi30k"


def pytest_collection_finish(session):
    """Everything imported so far stays to the end, and the garbage collector need not look at it again.

    Each training frees its memory by a full collection, which took a quarter of a second for half a million objects.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def drawn_curves():
    """Returns a context in which trainings draw their curves; elsewhere they do not: it was a third of their time."""
    # Where the training is not imported yet, nothing is imported for this; what comes later draws, as users do.
    report = sys.modules.get("hf_vanilla_transformer.training.report")
    if report is None:
        yield contextlib.nullcontext
        return
    with pytest.MonkeyPatch.context() as patch:
        draw = report.plot_curves
        patch.setattr(report, "plot_curves", lambda history, path, objective: Path(path).write_bytes(b"not drawn"))
        yield lambda: mock.patch.object(report, "plot_curves", draw)


@pytest.fixture(autouse=True)
def _same_random_numbers_and_environment_for_every_test():
    torch.manual_seed(0)
    # `datasets` puts another `os.environ` in the place of the one that a test may have changed and would change back.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture(scope="session")
def multi30k() -> Path:
    """The folder of real parallel text; a test that asks for it is skipped where there is none."""
    if not MULTI30K.is_dir():
        pytest.skip("no multi30k beside the project")
    return MULTI30K


@pytest.fixture
def package_log(caplog):
    """What the package logs, down to what it says for information only."""
    caplog.set_level(logging.INFO, logger="hf_vanilla_transformer")
    return caplog
