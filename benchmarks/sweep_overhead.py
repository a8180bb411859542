"""A sweep against the same runs done bare, and what the start of a trial costs. The forum recipe, one worker.

    python benchmarks/sweep_overhead.py [--part overhead|start] [--trials 2] [--rounds 60] [--repeat 1]

Overhead: `r2m sweep` as a program, from its start to its exit, the answer and MLflow included, against processes that
call the worker loop for the configurations that the sweep ran; one after the other, and two at once. The bare side
has its folders and journals made before its clock starts; its imports are inside. The models are there for both.

Start: the gap from a run's end to the next one's first round, in sweeps of short trials whose processes are reused
(as they are), started anew, or wait for a nested Ray Train worker; and `r2m train`, a program a run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # as r2m itself does

from side_by_side import print_table, spread  # isort: skip

import yaml

import r2m.config
from r2m.runs.journal import JournalReader

R2M = str(Path(sys.executable).with_name("r2m"))
FRESH = multiprocessing.get_context("spawn")  # a new interpreter, imports and all
CONFIRM = [1000, 1001]
SHORT_ROUNDS, SHORT_TRIALS = 2, 4
MANY = 20
START, END, WALL = "start, to the first round", "end, from the last run", "**wall**"

Trees = dict[str, dict[str, Any]]  # a run's configuration by what its name has after the sweep's: t000-s0
PROCESSES = {
    "reused": "processes reused",
    "new": "a new process a trial",
    "nested": "a nested Ray Train worker a trial",
}


class Stretch(NamedTuple):
    """A run by its journal. Times in seconds since the epoch."""

    begun: float  # the first round
    ended: float
    rounds_s: float  # all rounds; evaluations, checkpoints and the journal are between them
    gold: float  # at the last evaluation: the same wherever the run is done


class Measured(NamedTuple):
    began: float
    ended: float
    runs: list[Stretch]  # in the order of their beginning

    def parts(self, slots: int) -> dict[str, float]:
        """Seconds of a slot, of which there are `slots` side by side: what the wall time is made of.

        The first runs are the slots' first, the last their last; a slot that waits for another one is in a gap.
        """
        begun = sorted(run.begun for run in self.runs)
        ended = sorted(run.ended for run in self.runs)
        seconds = {
            START: sum(begun[:slots]) - slots * self.began,
            "rounds": sum(run.rounds_s for run in self.runs),
            "between rounds": sum(run.ended - run.begun - run.rounds_s for run in self.runs),
            "between runs": sum(begun[slots:]) - sum(ended[:-slots]),
            END: slots * self.ended - sum(ended[-slots:]),
        }
        return {part: value / slots for part, value in seconds.items()} | {WALL: self.ended - self.began}

    @property
    def gaps(self) -> list[float]:
        """Of runs that come one after another."""
        return [b.begun - a.ended for a, b in pairwise(self.runs)]


class Bench:
    """Everything is run in one storage folder, whose models are prepared."""

    def __init__(self, storage: str) -> None:
        from r2m.stages.prepare import prepare

        self.storage = storage
        prepared = prepare(r2m.config.load("forum", [f"run.storage={storage}"]))
        self.models = prepared.policy, prepared.reward

    def sweep_file(self, trials: int, rounds: int, concurrent: int, confirm: Sequence[int] = CONFIRM) -> str:
        """Random search, so that what is tried does not depend on how many trials run at once."""
        tree = {
            "recipe": "forum",
            "set": {"algorithm.rounds": rounds, "run.device": "cpu"},
            "parameters": {
                "reward.alpha": {"uniform": [0, 1]},
                "reward.omega_min": {"uniform": [0, 0.9]},
                "reward.lr": {"loguniform": [1e-5, 1e-3]},
            },
            "objectives": [{"metric": "eval/gold"}],
            "sampler": {"kind": "random"},
            "budget": {"trials": trials, "evaluations": 5, "concurrent": concurrent},
            "baselines": {},
            "confirm": list(confirm),
        }
        path = Path(self.storage) / f"sweep-{trials}-{rounds}-{concurrent}.yaml"
        path.write_text(yaml.safe_dump(tree))
        return str(path)

    def program(self, command: str, what: str, name: str, *options: str) -> Measured:
        """r2m COMMAND WHAT as a program, from its start to its exit."""
        words = [R2M, command, what, "--name", name, "--storage", self.storage, *options]
        began = time.time()
        ended = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if ended.returncode:
            sys.exit(f"{' '.join(words)}: {ended.stderr}")
        return self.measured(began, name)

    def bare(self, trees: Trees, name: str, processes: int) -> Measured:
        """The worker loop for these configurations, in processes that have a like share of them each."""
        from r2m.training.start import new_run

        runs = [new_run(r2m.config.validate(tree), f"{name}-{suffix}") for suffix, tree in trees.items()]
        folders = [run.folder for run in runs]
        began = time.time()
        workers = [
            FRESH.Process(target=run_bare, args=(folders[i::processes], self.models)) for i in range(processes)
        ]
        for worker in workers:
            worker.start()
        join(workers)
        return self.measured(began, name)

    def driven(self, file: str, name: str, processes: str) -> Measured:
        """A sweep whose trials have such processes, in a driver process of our own."""
        began = time.time()
        driver = FRESH.Process(target=drive, args=(file, name, self.storage, processes))
        driver.start()
        join([driver])
        return self.measured(began, name)

    def measured(self, began: float, name: str) -> Measured:
        ended = time.time()
        return Measured(began, ended, sorted(stretch(folder) for folder in self.folders(name)))

    def folders(self, name: str) -> list[Path]:
        return sorted((Path(self.storage) / "runs").glob(f"{name}*"))

    def trees(self, name: str) -> Trees:
        """The configurations of a sweep's runs."""
        return {
            folder.name.removeprefix(f"{name}-"): yaml.safe_load((folder / "config.yaml").read_text())
            for folder in self.folders(name)
        }


def stretch(folder: Path) -> Stretch:
    records = JournalReader(folder / "journal.jsonl").new_records()
    rounds = [record for record in records if record["kind"] == "round"]
    first = rounds[0]["metrics"]
    (finished,) = [record for record in records if record.get("name") == "finished"]
    return Stretch(
        rounds[0]["time"] - first["time/round_s"] - first.get("time/eval_s", 0.0),
        finished["time"],
        sum(record["metrics"]["time/round_s"] for record in rounds),
        rounds[-1]["metrics"]["eval/gold"],
    )


def run_bare(folders: list[Path], models: tuple[str, str]) -> None:
    """In a process of its own."""
    from r2m.training.loop import run_loop

    for folder in folders:
        run_loop(r2m.config.validate(yaml.safe_load((folder / "config.yaml").read_text())), folder, models)


def drive(file: str, name: str, storage: str, processes: str) -> None:
    """In a process of its own. Which processes a trial gets is no setting, so the sweep's modules are altered."""
    from r2m.sweeps import driver
    from r2m.sweeps.sweep import new_sweep
    from r2m.training.cluster import RAY_SETTINGS

    if processes == "new":
        os.environ.update(RAY_SETTINGS)  # read when ray is imported
        from ray import tune

        config = tune.TuneConfig
        tune.TuneConfig = lambda **given: config(**given | {"reuse_actors": False})
    if processes == "nested":
        plan_of = driver.plan_of
        driver.plan_of = lambda *args: replace(plan_of(*args), nested=True)
    with open(os.devnull, "w") as nowhere:
        console = driver.Console(file=nowhere)
        driver.run_sweep(new_sweep(file, name, storage), console=console)


def new_name(what: str) -> str:
    return f"{what}-{secrets.token_hex(3)}"


def join(processes: Sequence[Any]) -> None:
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit("a process of the benchmark failed: see above")


def figure(values: Sequence[float], digits: int = 1) -> str:
    return spread(values, digits) if len(values) > 1 else f"{values[0]:.{digits}f}"


def overhead(bench: Bench, trials: int, rounds: int, repeat: int) -> None:
    """Whoever goes first in one measurement goes second in the next; the first sweep says what the runs are."""
    trees: Trees = {}
    seen: dict[tuple[int, str], list[Measured]] = defaultdict(list)
    for i in range(2 * repeat):
        slots = 1 + i % 2
        file = bench.sweep_file(trials, rounds, slots)
        for side in ("sweep", "bare") if i % 4 in (0, 3) else ("bare", "sweep"):
            name = new_name(side)
            if side == "bare":
                seen[slots, side].append(bench.bare(trees, name, slots))
            else:
                seen[slots, side].append(bench.program("sweep", file, name))
                trees = trees or bench.trees(name)
                assert bench.trees(name) == trees
    for slots in (1, 2):
        overhead_table(slots, seen[slots, "bare"], seen[slots, "sweep"])
    golds = {tuple(sorted(run.gold for run in m.runs)) for measured in seen.values() for m in measured}
    assert len(golds) == 1, "the same runs have come to different ends"


def overhead_table(slots: int, bare: list[Measured], sweep: list[Measured]) -> None:
    theirs, ours = ([m.parts(slots) for m in side] for side in (bare, sweep))
    more = [{part: a[part] - b[part] for part in a} for a, b in zip(ours, theirs, strict=True)]
    wall = [parts[WALL] for parts in theirs]
    rows = []
    for part in theirs[0]:
        share = [100 * m[part] / w for m, w in zip(more, wall, strict=True)]
        rows.append((part, *(figure([m[part] for m in side]) for side in (theirs, ours)), figure(share)))
    print_table((f"{slots} at once: seconds of a slot", "bare", "sweep", "more, % of bare's wall"), rows)
    runs = len(bare[0].runs)
    length = statistics.median(run.ended - run.begun for m in bare for run in m.runs)
    ratio = [1 + m[WALL] / w for m, w in zip(more, wall, strict=True)]
    once = [m[START] + m[END] for m in more]
    each = [slots * (m[WALL] - o) / runs for m, o in zip(more, once, strict=True)]
    many = [1 + (o + e * MANY / slots) / (w * MANY / runs) for o, e, w in zip(once, each, wall, strict=True)]
    print(
        f"\n{runs} runs of {length:.0f} s (bare). Ratio of the wall times: {figure(ratio, 3)}. More, once: "
        f"{figure(once)} s; more, a run: {figure(each, 2)} s. By that, {MANY} such runs: {figure(many, 3)}."
    )


def start(bench: Bench) -> None:
    """Every way has the same short runs but `r2m train`, which has one."""
    file = bench.sweep_file(SHORT_TRIALS, SHORT_ROUNDS, 1, CONFIRM[:1])
    ways: dict[str, Measured] = {}
    trees: Trees = {}
    for processes, way in PROCESSES.items():
        name = new_name("start")
        ways[f"sweep, {way}"] = bench.driven(file, name, processes)
        trees = trees or bench.trees(name)
    bare = ways["run_loop in one process"] = bench.bare(trees, new_name("start"), 1)
    settings = "--set", f"algorithm.rounds={SHORT_ROUNDS}"
    ways["`r2m train`, a program a run"] = bench.program("train", "forum", new_name("start"), *settings)
    rows = []
    for way, m in ways.items():
        parts = m.parts(1)
        gap = spread(m.gaps) if m.gaps else "-"
        rows.append((way, str(len(m.runs)), gap, *(f"{parts[part]:.1f}" for part in (START, END, WALL))))
    print_table(("seconds", "runs", "gap between runs", START, END, "wall"), rows)
    length = statistics.median(run.ended - run.begun for run in bare.runs)
    print(f"\nRuns of {SHORT_ROUNDS} rounds, {length:.1f} s in one process; one at a time.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["overhead", "start", "both"], default="both")
    parser.add_argument("--trials", type=int, default=2, help=f"besides {len(CONFIRM)} runs of confirmation")
    parser.add_argument("--rounds", type=int, default=60, help="of a run")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--storage", help="a folder that keeps models and runs [default: a temporary one]")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(args.storage or temporary)
        if args.part != "overhead":  # first: it also warms the file cache
            start(bench)
        if args.part != "start":
            overhead(bench, args.trials, args.rounds, args.repeat)


if __name__ == "__main__":
    main()
