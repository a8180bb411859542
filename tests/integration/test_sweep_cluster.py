"""A sweep on a Ray cluster of two nodes, both on this machine, one of which dies while a trial runs on it."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import descendants, end_of, has_open, r2m, shipped, states, steady, undisturbed, wait_for

from r2m.runs.journal import JournalReader
from r2m.sweeps.sweep import open_sweep, runs_of

SweepFile = Callable[..., str]


def test_a_node_dies_under_a_trial(two_nodes: dict[str, Any], sweep_file: SweepFile, tmp_path: Path) -> None:
    """Its trial goes on from its checkpoint on the node that is left, when there is room; the sweep ends by itself,
    with the runs of one that nothing happened to."""
    storage = str(tmp_path / "storage")
    file = sweep_file(
        "algorithm.rounds=50", "run.checkpoint_every=5",
        budget={"trials": 4, "evaluations": 4},  # as many at once as the nodes have room for
        baselines={},
        confirm=[10],
    )  # fmt: skip
    runs, (head, second) = Path(storage) / "runs", two_nodes["raylets"]

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
        "sweep", file, "--name", "mine", "--storage", storage, "--address", two_nodes["address"], cwd=tmp_path
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
