"""Runs that were killed: MLflow hears of it from whoever looks next, and of it where one goes on."""

import os
import signal
import subprocess
import sys

from mlflow_store import CONFIG, mlflow_runs, started

from r2m.line_file import holding
from r2m.runs.folder import DRIVER
from r2m.runs.journal import Journal
from r2m.tracking.client import client_of
from r2m.tracking.killed import mark_killed
from r2m.tracking.mlflow_sink import Sink, default_tracking_uri


def marked(storage):
    uri = default_tracking_uri(storage)
    with client_of(uri) as client:
        return mark_killed(storage, uri, client)


def status(storage, name, experiment="r2m/forum/sft"):
    (run,) = mlflow_runs(default_tracking_uri(storage), name, experiment)
    return run.info.status, run.data.tags["r2m.status"]


def test_a_run_that_was_killed_is_marked_by_sync_and_runs_again_where_it_is_taken_up(storage, r2m):
    folder, uri = storage / "runs" / "shot", default_tracking_uri(storage)
    with started(folder) as journal:
        journal.round(1, {"eval/gold": 0.5})
    code = "import sys, time; from r2m.runs.journal import Journal; held = Journal(sys.argv[1])\n"
    code += "held.round(2, {'eval/gold': 1.0}); print('writing', flush=True); time.sleep(600)"
    worker = subprocess.Popen([sys.executable, "-c", code, journal.path], stdout=subprocess.PIPE, text=True)
    assert worker.stdout.readline() == "writing\n"
    Sink(uri, folder).ship()
    assert "shot" not in marked(storage)
    assert status(storage, "shot") == ("RUNNING", "running")
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    worker.stdout.close()
    started(storage / "runs" / "other").close()
    assert r2m("sync", "other", "--storage", str(storage))[0] == 0
    assert status(storage, "shot") == ("KILLED", "killed")
    assert status(storage, "other") == ("KILLED", "killed")  # nobody has it, either
    assert not {"shot", "other"} & set(marked(storage))
    with Journal(journal.path) as journal:
        journal.event("resume")
        Sink(uri, folder).ship()
        assert status(storage, "shot") == ("RUNNING", "running")
        journal.event("finished")
    Sink(uri, folder).ship()
    assert status(storage, "shot") == ("FINISHED", "finished")


def test_one_whose_worker_is_between_two_lives_is_its_drivers(storage):
    folder, uri = storage / "runs" / "driven", default_tracking_uri(storage)
    started(folder).close()
    Sink(uri, folder).ship()
    with holding(folder / DRIVER):
        assert "driven" not in marked(storage)
    assert "driven" in marked(storage)


def test_a_sweeps_runs_are_its_drivers(storage):
    sweep, child, uri = storage / "sweeps" / "led", storage / "runs" / "led-t000-s0", default_tracking_uri(storage)
    tree, experiment = {"sweep": {"recipe": "forum"}}, "r2m/sweeps/led"
    with started(sweep, tree, experiment=experiment):
        started(child, CONFIG, experiment=experiment, parent="led").close()
        for folder in (sweep, child):
            Sink(uri, folder).ship()
        assert not {"led", "led-t000-s0"} & set(marked(storage))
    assert {"led", "led-t000-s0"} <= set(marked(storage))
    assert status(storage, "led", experiment) == ("KILLED", "killed")
