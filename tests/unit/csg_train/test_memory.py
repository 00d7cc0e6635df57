import os
import platform
import subprocess
import sys

import pytest

from csg_train.training.memory import MALLOC_SETTINGS

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


STEPS = """
import ctypes
import resource
import torch
from csg_train.training.memory import keep_freed_memory

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        step = [torch.ones(1_000_000 * millions) for millions in range(1, 9)]  # 137 MiB
        del step
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

for setting in (-1, -3):  # both thresholds as glibc has them at the start
    ctypes.CDLL(None).mallopt(setting, 128 * 1024)
given_back = page_faults()
keep_freed_memory()
page_faults()
print(given_back, min(page_faults() for _ in range(5)))  # the machine itself may take pages back in one of them
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such settings")
@pytest.mark.parametrize("users", [{}, {"MALLOC_TRIM_THRESHOLD_": "131072"}])
def test_a_training_keeps_freed_memory_unless_the_user_has_settings(users):
    inherited = {name: value for name, value in os.environ.items() if name not in MALLOC_SETTINGS}
    environment = inherited | users
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True, env=environment)
    given_back, kept = map(int, done.stdout.split())
    assert given_back > 1000
    assert kept > 1000 if users else kept < 100
