"""Weights that come and go between others leave no holes in a process's memory."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import os
from pathlib import Path
import torch
from r2m.policy import zero

def resident_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

def given_back_mib():
    come_and_go = [(torch.ones(3 * 2**18), torch.ones(2**12)) for _ in range(50)]
    full = resident_mib()
    stay = [small for _, small in come_and_go]
    del come_and_go
    return full - resident_mib()

torch.ones(31 * 2**18)  # freed: glibc maps no smaller block by itself from now on
if not (child := os.fork()):
    print(given_back_mib(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
zero._give_freed_memory_back()
print(given_back_mib())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_what_is_freed_between_others_is_given_back() -> None:
    """150 MiB in all. Two processes, each as the other was before: one that has holes already fills them before it
    maps anything."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    plain, zero3 = map(float, done.stdout.split())
    assert plain < 50
    assert zero3 > 100
