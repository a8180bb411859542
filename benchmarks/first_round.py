"""From the command to the first round of the forum, its models prepared: seconds, and CPU seconds of all processes.

python benchmarks/first_round.py                    # this tree; 2 minutes
python benchmarks/first_round.py --beside ../other  # and another checkout, in turns
"""

import argparse
import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = "from r2m.cli import main; main()"
PR_SET_CHILD_SUBREAPER = 36


def cpu_seconds() -> float:
    """Of all descendants that have ended, once they have: those whose parents end first become our own."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def train(tree: Path, storage: Path, name: str) -> tuple[float, float, float]:
    """Seconds to the run's journal, and to its first round, and CPU seconds of the whole command."""
    command = ["train", "forum", "--name", name, "--storage", str(storage), "--set", "algorithm.trajectories=null",
               "--set", "algorithm.rounds=1", "--set", "run.eval_every=0"]  # fmt: skip
    before, began = cpu_seconds(), time.time()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command], env=os.environ | {"PYTHONPATH": str(tree)}, capture_output=True,
        text=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    cpu = cpu_seconds() - before
    records = map(json.loads, (storage / "runs" / name / "journal.jsonl").read_text().splitlines())
    times = {record["kind"]: record["time"] for record in records if record["kind"] in ("start", "round")}
    return times["start"] - began, times["round"] - began, cpu


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cache", type=Path, help="a storage's folder of prepared models; else they are trained")
    given = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    trees = {"this tree": ROOT} | ({given.beside.name: given.beside.resolve()} if given.beside else {})
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in trees}
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder)
        if given.cache:
            shutil.copytree(given.cache, storage / "cache")
        train(ROOT, storage, "prepare")  # the models, and files into the page cache
        for i in range(given.runs):
            for n, (name, tree) in enumerate(trees.items()):
                found[name].append(train(tree, storage, f"run-{i}-{n}"))
                print(name, *(f"{value:.1f}" for value in found[name][-1]), file=sys.stderr, flush=True)
    print("| | to the journal, s | to the first round, s | CPU seconds of the command |")
    print("|---|---:|---:|---:|")
    for name, rows in found.items():
        print(f"| {name} | {' | '.join(map(spread, zip(*rows, strict=True)))} |")


def spread(values: Sequence[float]) -> str:
    return f"{median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
