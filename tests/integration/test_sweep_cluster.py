"""A sweep on a Ray cluster of two nodes, both on this machine, one of which dies while a trial runs on it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import descendants, end_of, has_open, kill_all, r2m, shipped, states, steady, undisturbed, wait_for

from r2m.runs.journal import JournalReader
from r2m.sweeps.sweep import open_sweep, runs_of

SweepFile = Callable[..., str]

# A process of its own: its environment is the nodes', and all that it starts are its descendants.
CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster
cluster = Cluster()
nodes = [cluster.add_node(num_cpus=1, include_dashboard=False) for _ in range(2)]
raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
sys.stdin.read()
cluster.shutdown()
"""
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "RAY_health_check_initial_delay_ms": "1000",  # a node is found dead after some 3 s instead of 20
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


@pytest.fixture
def cluster() -> Iterator[dict[str, Any]]:
    """Its address, and the process ids of the two nodes' raylets: a CPU each, the head first."""
    with tempfile.TemporaryDirectory(prefix="r2m-", ignore_cleanup_errors=True) as folder:  # socket paths are short
        process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=os.environ | SETTINGS | {"RAY_TMPDIR": folder},
        )  # fmt: skip
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            ours = [process.pid, *descendants(process.pid)]
            try:
                end_of(process)  # the end of its input is the end of the cluster
            finally:
                kill_all(ours)


def test_a_node_dies_under_a_trial(cluster: dict[str, Any], sweep_file: SweepFile, tmp_path: Path) -> None:
    """Its trial goes on from its checkpoint on the node that is left, when there is room; the sweep ends by itself,
    with the runs of one that nothing happened to."""
    storage = str(tmp_path / "storage")
    file = sweep_file(
        "algorithm.rounds=50", "run.checkpoint_every=5",
        budget={"trials": 4, "evaluations": 4},  # as many at once as the nodes have room for
        baselines={},
        confirm=[10],
    )  # fmt: skip
    runs, (head, second) = Path(storage) / "runs", cluster["raylets"]

    def done(path: Path) -> int:
        return max((r["step"] for r in JournalReader(path).new_records() if r["kind"] == "round"), default=0)

    def at_work(raylet: int) -> list[Path]:
        """The journals of the runs on a node."""
        pids = descendants(raylet)
        return [path for path in runs.glob("mine-*/journal.jsonl") if any(has_open(pid, path) for pid in pids)]

    def both_at_work() -> bool:
        """With a checkpoint, and much left to do, on the node that dies."""
        return bool(at_work(head)) and any(10 < done(path) < 40 for path in at_work(second))

    process = r2m(
        "sweep", file, "--name", "mine", "--storage", storage, "--address", cluster["address"], cwd=tmp_path
    )
    try:
        wait_for(both_at_work, process)
        (orphan,) = at_work(second)
        node = [second, *descendants(second)]
        for pid in node:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not any(has_open(pid, orphan) for pid in node))
        assert done(orphan) < 50
        said = end_of(process)
        assert process.returncode == 0, said
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    opened = open_sweep(storage, "mine")
    views = runs_of(opened)
    assert {view.status for view in views.values()} == {"finished"}
    assert states(opened) == {"COMPLETE": 4}
    winner = json.loads((opened.folder / "answer.json").read_text())["winner"]
    assert set(views) == {*(f"mine-t{n:03d}-s0" for n in range(4)), f"mine-{winner}-s10"}
    for view in views.values():
        events = [event["name"] for event in view.events]
        assert events.count("finished") == 1
        resumed = [event["step"] for event in view.events if event["name"] == "resume"]
        assert bool(resumed) == (view.run_id == orphan.parent.name)
        assert all(step >= 10 for step in resumed)
        assert steady(view) == steady(undisturbed(view, tmp_path))
    _, children = shipped(opened)
    assert set(children) == set(views)
    assert {run.info.status for run in children.values()} == {"FINISHED"}
