"""What the tests that start and kill processes share, and what they hold a run or a sweep against."""

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from r2m.config import validate
from r2m.runs.journal import JournalView, read
from r2m.sweeps.sweep import Opened
from r2m.training.loop import run_loop
from r2m.training.start import new_run

R2M = str(Path(sys.executable).with_name("r2m"))
PATIENCE_S = 120.0
RELATIVE = 2e-4  # fp32 sums in another order, after some rounds that go on from their results


def steady(view: JournalView) -> list[dict[str, float]]:
    """What the rounds say but for what the machine's speed decides; NaN as something that equals itself."""
    return [
        {
            k: "NaN" if math.isnan(v) else v
            for k, v in metrics.items()
            if k.split("/")[0] not in ("time", "speed", "memory")
        }
        for metrics in view.rounds.values()
    ]  # fmt: skip


def wait_for(
    what: Callable[[], object], process: subprocess.Popen | None = None, watched: Path | None = None
) -> None:
    """Until it is so; the process is not to end before.

    Gives up on what hangs, not on what is slow: after PATIENCE_S, times the load of a core, in which no file of the
    runs and sweeps below `watched` (the process's folder by default) has grown.
    """
    watched = watched or getattr(process, "folder", None)
    since, size = time.monotonic(), written(watched)
    while not what():
        assert process is None or process.poll() is None, process.communicate()
        if time.monotonic() - since > PATIENCE_S * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)):
            assert size != (size := written(watched)), f"nothing has been written in {watched}"
            since = time.monotonic()
        time.sleep(0.02)


def written(folder: Path | None) -> int:
    """Bytes of the journals, studies and logs below it."""
    total = 0
    for place, _, names in () if folder is None else os.walk(folder):  # which passes over folders that are gone since
        for name in names:
            with suppress(OSError):  # a file, too
                total += (Path(place) / name).stat().st_size
    return total


def end_of(process: subprocess.Popen, watched: Path | None = None) -> str:
    """What it has said by its end, which is waited for as by `wait_for`."""
    said: list[str] = []

    def ended() -> bool:
        with suppress(subprocess.TimeoutExpired):
            said.append(process.communicate(timeout=0.5)[0])
        return bool(said)

    wait_for(ended, watched=watched or getattr(process, "folder", None))
    return said[0]


def r2m(*arguments: str, cwd: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [R2M, *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    process.folder = cwd  # type: ignore[attr-defined]
    return process


def assert_same_rounds(one: JournalView, other: JournalView) -> None:
    """As far as sums in another order go: to RELATIVE of a number or, if it is about 0, of its largest."""
    expected, found = steady(one), steady(other)
    assert [r.keys() for r in found] == [r.keys() for r in expected]
    for key in {key for r in expected for key in r}:
        values = [r[key] for r in expected if r.get(key, "NaN") != "NaN"]
        least = RELATIVE * max(map(abs, values), default=0.0)
        if "log_prob_error" in key or key.endswith("ratio_error_first_minibatch"):
            least = 1e-4  # the alarm's own threshold: these are rounding, and nothing else
        if key == "train/policy_loss":  # terms of either sign
            least = RELATIVE * max(r["train/advantage_std"] for r in expected)
        for a, b in zip(expected, found, strict=True):
            if key in a:
                assert b[key] == (a[key] if a[key] == "NaN" else pytest.approx(a[key], rel=RELATIVE, abs=least)), key


def descendants(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [d for child in map(int, text.split()) for d in (child, *descendants(child))]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def has_open(pid: int, path: Path) -> bool:
    try:
        return any(os.readlink(fd) == str(path) for fd in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def has_loaded(pid: int, library: str) -> bool:
    try:
        return library in Path("/proc", str(pid), "maps").read_text()
    except OSError:
        return False


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def kill_all(pids: Iterable[int]) -> None:
    """Those that are left of a killed driver: Ray's agents stay for a minute."""
    for pid in pids:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def undisturbed(view: JournalView, tmp_path: Path) -> JournalView:
    """The journal of the same run by the worker loop alone, with one worker."""
    tree = view.start["config"]
    tree["run"] |= {"storage": str(tmp_path / "undisturbed"), "workers": 1}
    run = new_run(validate(tree), view.run_id)
    run_loop(run.config, run.folder, run.models)
    return read(run.journal)


def states(opened: Opened) -> Counter[str]:
    return Counter(trial.state.name for trial in opened.study().get_trials())


def shipped(opened: Opened) -> tuple[Any, dict[str, Any]]:
    """The sweep's run in MLflow, and those that name it as their parent, by their name; none is there twice."""
    client = MlflowClient(opened.tracking_uri)
    experiment = client.get_experiment_by_name(opened.experiment)
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(runs) - 1
    assert len({run.data.tags["r2m.run_id"] for run in children}) == len(children)
    return parent, {run.data.tags["r2m.run_id"]: run for run in children}
