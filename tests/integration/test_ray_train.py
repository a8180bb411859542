"""Runs on Ray Train: several workers, a silent MLflow, and processes that are killed.

What a run must come to, whatever happens to it, is what the worker loop alone gives in this process.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from processes import (
    R2M,
    alive,
    assert_same_rounds,
    command_of,
    descendants,
    end_of,
    has_loaded,
    has_open,
    kill_all,
    r2m,
    steady,
    wait_for,
)

from r2m.config import Config, ForumTask
from r2m.errors import UserError
from r2m.runs.journal import JournalReader, JournalView, read
from r2m.stages.cache import cached
from r2m.stages.prepare import model_names
from r2m.tracking.mlflow_sink import Sink
from r2m.training import driver
from r2m.training.loop import run_loop
from r2m.training.start import new_run, open_run

MakeConfig = Callable[..., Config]


def expected(config: Config) -> JournalView:
    run = new_run(config.model_copy(update={"run": config.run.model_copy(update={"workers": 1})}), "expected")
    run_loop(run.config, run.folder, run.models)
    return read(run.journal)


@pytest.fixture
def refused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_two_workers_and_an_mlflow_that_does_not_answer(
    ray_cluster: None, make_config: MakeConfig, tmp_path: Path, refused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Side by side: one run of two workers, one whose MLflow refuses connections until it has ended."""
    monkeypatch.setattr(driver, "SHIP_TIMEOUT_S", 20.0)  # MLflow may not have been loaded before the end
    uri = f"http://127.0.0.1:{refused_port}"
    two = new_run(make_config("run.workers=2"), "two")
    unheard = new_run(make_config(f"run.tracking_uri={uri}"), "unheard")
    views = driver.execute([two, unheard])
    assert [view.status for view in views] == ["finished", "finished"]
    reference = expected(make_config())
    assert_same_rounds(reference, views[0])
    assert steady(views[1]) == steady(reference)
    assert (unheard.folder / "curves.png").is_file()

    shipped = MlflowClient(two.tracking_uri)
    assert_every_point_once(shipped, views[0])

    storage = str(tmp_path / "storage")
    server = subprocess.Popen(
        [R2M, "ui", "--storage", storage, "--port", str(refused_port)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        assert uri in server.stdout.readline()
        points = sum(len(metrics) for metrics in views[1].rounds.values())
        said = subprocess.check_output([R2M, "sync", "unheard", "--storage", storage], text=True)
        assert said.endswith(f"unheard: {points} metric points shipped\n")
        assert Sink(uri, unheard.folder).ship() == 0
        assert_every_point_once(MlflowClient(uri), views[1])
    finally:
        server.terminate()
        server.wait()


def assert_every_point_once(client: MlflowClient, view: JournalView) -> None:
    experiments = [e.experiment_id for e in client.search_experiments()]
    (run,) = client.search_runs(experiments, f"tags.`r2m.run_id` = '{view.run_id}'")
    assert run.info.status == "FINISHED"
    for key in ("reward/proxy", "kl/sequence", "eval/gold", "head/omega"):
        history = client.get_metric_history(run.info.run_id, key)
        steps, values = view.series(key)
        assert sorted((p.step, p.value) for p in history) == list(zip(steps, values, strict=True))


def test_a_full_disk_is_one_line(
    ray_cluster: None, make_config: MakeConfig, small_disk: Path, tmp_path: Path
) -> None:
    """Full when the first checkpoint is written."""
    elsewhere = f"run.tracking_uri=sqlite:///{tmp_path}/mlflow.db"
    run = new_run(make_config(f"run.storage={small_disk}", elsewhere, "run.max_failures=0"), "full")
    free = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize - 2**18))
    with pytest.raises(UserError, match=r"^disk full: .*No space left on device") as error:
        driver.execute([run])
    assert "\n" not in str(error.value)
    view = read(run.journal)
    assert view.status == "failed"
    assert view.events[-1]["reason"] == str(error.value)
    assert list(view.rounds) == [1, 2]


@pytest.mark.timeout(0)  # what it waits for has limits of its own
def test_a_run_is_killed_twice_stopped_and_finished(
    make_config: MakeConfig, forum_models: tuple[str, str], tmp_path: Path
) -> None:
    """A worker is killed, and another takes over by itself; the driver is killed; resumed, Ctrl-C stops the run
    with a checkpoint; and at the end it has the metrics of a run that nothing happened to, bit for bit. Meanwhile
    the worker alone has loaded torch, and Ray Train has started no process that is not needed here."""
    own = ("policy.model=null", "reward.model=null")
    config = make_config("algorithm.rounds=150", "run.eval_every=50", "run.checkpoint_every=5", *own)
    assert isinstance(config.task, ForumTask)
    for name, model in zip(model_names(config.task), forum_models, strict=True):
        cached(Path(config.run.storage, "cache", name), partial(shutil.copytree, model, dirs_exist_ok=True))
    reference = steady(expected(config))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    storage = config.run.storage
    journal = Path(storage) / "runs" / "mine" / "journal.jsonl"
    ours: set[int] = set()

    def records(kind: str) -> list[dict]:
        return [record for record in JournalReader(journal).new_records() if record["kind"] == kind]

    def done() -> int:
        return max((record["step"] for record in records("round")), default=0)

    def resumed() -> int:
        return sum(event["name"] == "resume" for event in records("event"))

    def ray_train() -> set[str]:
        titles = " ".join(command_of(pid) for pid in ours)
        return {title for title in re.findall(r"ray::_?(\w+)", titles) if not title.endswith("Agent")}

    def worker_of(process: subprocess.Popen) -> int:
        ours.update(descendants(process.pid))
        (worker,) = [pid for pid in descendants(process.pid) if has_open(pid, journal)]
        return worker

    process = r2m("train", "recipe.yaml", "--name", "mine", cwd=tmp_path)
    try:
        wait_for(lambda: done() >= 8, process)
        worker = worker_of(process)
        assert [pid for pid in (process.pid, *ours) if has_loaded(pid, "libtorch")] == [worker]
        assert ray_train() == {
            "AutoscalingCoordinatorActor",
            "TrainController",
            "SynchronizationActor",
            "RayTrainWorker",
        }
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: resumed() == 1, process)
        before = done()
        wait_for(lambda: done() > before, process)
        worker = worker_of(process)
        process.kill()
        process.communicate()
        wait_for(lambda: not alive(worker))  # Ray ends its workers with their driver

        process = r2m("train", "--resume", "mine", "--storage", storage, cwd=tmp_path)
        before = done()
        wait_for(lambda: done() > before, process)
        worker_of(process)
        process.send_signal(signal.SIGINT)
        said = end_of(process)
        assert process.returncode == 130, said
        assert "Traceback" not in said
        assert f"train --resume mine --storage {storage}\n" in said
        assert [event["name"] for event in records("event")][-2:] == ["checkpoint", "stopped"]
        assert done() < 150
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
        kill_all(ours)
    run = open_run(storage, "mine")
    run_loop(run.config, run.folder, run.models)
    assert resumed() == 3
    view = read(journal)
    assert view.status == "finished"
    assert steady(view) == reference
    Sink(run.tracking_uri, run.folder).ship()
    assert_every_point_once(MlflowClient(run.tracking_uri), view)
