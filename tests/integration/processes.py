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
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from r2m.config import validate
from r2m.runs.journal import JournalView, read
from r2m.sweeps.sweep import Opened
from r2m.training.loop import run_loop
from r2m.training.start import new_run

R2M = str(Path(sys.executable).with_name("r2m"))
PATIENCE_S = 120.0


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


def wait_for(what: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)


def r2m(*arguments: str, cwd: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [R2M, *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


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
