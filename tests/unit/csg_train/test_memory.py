import platform
import subprocess
import sys

import pytest

PROGRAM = """
import os
import torch
from csg_train.training.memory import release_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20

before = resident()
tensors = [torch.ones(20_000) for _ in range(4_000)]  # 305 MiB in blocks that the C library does not map one by one
last = torch.ones(20_000)
del tensors
kept = resident()
release_memory()
print(kept - before, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries can't be asked")
def test_memory_of_freed_tensors_goes_back_to_the_machine():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    kept, left = map(int, done.stdout.split())
    assert kept > 250
    assert left < 60
