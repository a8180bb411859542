"""The plan against what a worker takes, in a process of its own: the embedded task; benchmarks/README.md has more."""

import subprocess
import sys
from pathlib import Path

import pytest


def test_the_forums_memory_is_planned_within_15_percent() -> None:
    script = Path(__file__).parents[3] / "benchmarks" / "plan_memory.py"
    done = subprocess.run([sys.executable, script, "forum"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    name, planned, measured, _ = done.stdout.splitlines()[-1].strip("| ").split(" | ")
    assert name == "forum"
    assert float(planned.replace(",", "")) / float(measured.replace(",", "")) == pytest.approx(1, abs=0.15)
