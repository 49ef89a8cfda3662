"""Training on a CPU keeps the memory that it frees: counted by the page faults of tensors that come and go."""

import subprocess
import sys

import pytest
import torch

PROGRAM = """
import resource, torch
from hf_vanilla_transformer.training.host_memory import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10): torch.ones(8 * 2**20 + 1).mul_(2)  # 32 MiB and a little
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
default = faults()
kept = keep_freed_memory()
faults()
print(kept, default, faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or torch.accelerator.is_available(), reason="of glibc and CPUs")
def test_tensors_of_one_size_share_their_pages():
    """Ten seconds, most of them for importing torch in a process of its own."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300, check=True)
    kept, default, faults = done.stdout.split()
    if kept == "False":
        pytest.skip("another C library than glibc")
    assert int(faults) < int(default) / 10
