"""Shipping to MLflow's SQLite store: all of a journal, each point once, whatever interrupts it."""

import json
import math
import sqlite3
import subprocess
import sys

import pytest
from mlflow import MlflowClient
from mlflow_store import CONFIG, mlflow_runs, points, started

from r2m.errors import UserError
from r2m.runs.journal import Journal
from r2m.tracking.mlflow_sink import Sink, default_tracking_uri


def test_all_of_a_journal_is_shipped_and_nothing_twice(storage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uri, run_dir = default_tracking_uri(storage), storage / "runs" / "whole"
    datasets = [{"name": "posts", "digest": "d" * 64, "source": "made", "rows": 8, "split": "train"}]
    config = CONFIG | {"long": "x" * 7000, "many": {f"k{i}": i for i in range(150)}, "none": None, "of": []}
    with started(run_dir, config, datasets) as journal:
        journal.round(0, {"reward/proxy": 0.5, "reward/gold": math.nan})
        journal.round(1, {"reward/proxy": 0.75, "reward/gold": math.inf, "eval/gold": 0.1})
        scores = {"proxy": 1.25, "vanilla": 1.0, "gold": math.nan}
        journal.samples(0, [{"prompt": "p", "response": "r"}, {"prompt": "q", "response": "s", **scores}])
        journal.samples(1, [{"prompt": "s"}])
        journal.event("finished")
    (run_dir / "config.yaml").write_text("reward: {}\n")
    picture = storage / "curves.png"
    picture.write_bytes(b"picture")

    assert Sink(uri, run_dir).ship([picture]) == 5
    again = Sink(uri, run_dir)
    assert (again.ship(), again.ship()) == (0, 0)

    assert points(uri, "whole", "reward/proxy") == [(0, 0.5), (1, 0.75)]
    assert points(uri, "whole", "eval/gold") == [(1, 0.1)]
    gold = points(uri, "whole", "reward/gold")
    assert [step for step, _ in gold] == [0, 1]
    assert math.isnan(gold[0][1])
    assert gold[1][1] > 1e300  # the largest double: the database has no infinity

    (run,) = mlflow_runs(uri, "whole")
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    client = MlflowClient(uri)
    timestamps = [p.timestamp for p in client.get_metric_history(run.info.run_id, "reward/proxy")]
    assert timestamps == [round(line["time"] * 1000) for line in lines if line["kind"] == "round"]
    assert (run.info.start_time, run.info.end_time) == tuple(round(lines[i]["time"] * 1000) for i in (0, -1))
    assert (run.info.status, run.info.run_name) == ("FINISHED", "whole")
    assert {key: value for key, value in run.data.tags.items() if key.startswith("r2m.")} == {
        "r2m.run_id": "whole",
        "r2m.arm": "R2M",
        "r2m.config_hash": "abc",
        "r2m.data_hash": "def",
        "r2m.version": "0.1.0",
        "r2m.git_commit": "c0ffee",
        "r2m.git_dirty": "False",
        "r2m.feedback": "True",
        "r2m.status": "finished",
    }
    assert len(run.data.params) == 4 + 150 + 3
    assert run.data.params["reward.lr"] == "0.0001"
    assert run.data.params["long"] == "x" * 6000
    assert (run.data.params["none"], run.data.params["of"]) == ("None", "[]")
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("posts", "d" * 36)
    assert [(tag.key, tag.value) for tag in data.tags] == [("mlflow.data.context", "train")]
    artifacts = {file.path: file for file in client.list_artifacts(run.info.run_id)}
    assert artifacts.keys() == {"config.yaml", "curves.png", "samples.json"}
    assert json.loads(next((storage / "mlartifacts").rglob("samples.json")).read_text()) == {
        "columns": ["prompt", "response", "round", "response, scored", "proxy", "vanilla", "gold"],
        "data": [
            ["p", "r", 0, None, None, None, None],
            ["q", "s", 0, "s\n[proxy 1.25, vanilla 1.00, gold nan]", 1.25, 1.0, "nan"],
            ["s", None, 1, None, None, None, None],
        ],
    }
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "samples.json", "type": "table"}]
    assert list(tmp_path.iterdir()) == []  # nothing of MLflow's in the working folder


def test_an_alarm_is_a_tag_and_its_page_an_artifact(storage):
    uri, run_dir = default_tracking_uri(storage), storage / "runs" / "alarmed"
    alarm = {"step": 3, "began": 1, "checkpoint": None, "reason": "judged lower", "signals": {"kl": 9.0}}
    with started(run_dir) as journal:
        journal.round(1, {"alarm/on": 0.0})
        sink = Sink(uri, run_dir)
        sink.ship()
        (run,) = mlflow_runs(uri, "alarmed")
        assert "r2m.alarm" not in run.data.tags
        (run_dir / "alarm.html").write_text("<p>texts</p>")
        journal.round(3, {"alarm/on": 1.0})
        journal.event("alarm", **alarm)
        sink.ship()  # while it goes on
    (run,) = mlflow_runs(uri, "alarmed")
    assert (run.data.tags["r2m.alarm"], run.info.status) == ("3", "RUNNING")
    assert points(uri, "alarmed", "alarm/on") == [(1, 0.0), (3, 1.0)]
    assert "alarm.html" in {file.path for file in MlflowClient(uri).list_artifacts(run.info.run_id)}
    (run_dir / "alarm.html").unlink()
    Sink(uri, run_dir).ship()  # of another storage, say: the journal says enough for the tag


def test_a_run_is_followed_through_stop_and_resume(storage):
    uri, run_dir = default_tracking_uri(storage), storage / "runs" / "resumed"
    sink = Sink(uri, run_dir)
    assert sink.ship() == 0  # no journal yet
    with started(run_dir) as journal:
        for step in (0, 1):
            journal.round(step, {"reward/proxy": float(step)})
        assert sink.ship() == 2
        assert mlflow_runs(uri, "resumed")[0].info.status == "RUNNING"
        journal.event("stopped")
        assert sink.ship() == 0
        assert mlflow_runs(uri, "resumed")[0].info.status == "KILLED"
    with Journal(journal.path) as journal:
        journal.event("resume")
        sink = Sink(uri, run_dir)
        assert sink.ship() == 0
        assert mlflow_runs(uri, "resumed")[0].info.status == "RUNNING"
        for step in (1, 2):  # round 1 is replayed
            journal.round(step, {"reward/proxy": step + 0.5})
        assert sink.ship() == 1
        journal.event("failed")
        sink.ship()
    (run,) = mlflow_runs(uri, "resumed")
    assert (run.info.status, run.data.tags["r2m.status"]) == ("FAILED", "failed")
    assert points(uri, "resumed", "reward/proxy") == [(0, 0.0), (1, 1.0), (2, 2.5)]


def test_points_logged_after_an_interruption_are_those_that_are_missing(storage):
    """Killed between two batches: some metrics of a round are there and others are not."""
    uri, run_dir = default_tracking_uri(storage), storage / "runs" / "killed"
    keys, rounds = [f"task/m{i}" for i in range(7)], 1200
    with started(run_dir) as journal:
        lines = [
            {"time": 1.0 + step, "kind": "round", "step": step, "metrics": dict.fromkeys(keys, step / 8)}
            for step in range(rounds)
        ]
    with open(journal.path, "a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    there = "select count(*) from metrics where key like 'task/m%'"
    with sqlite3.connect(storage / "mlflow.db") as database, shipping(uri, run_dir) as process:
        while not (committed := database.execute(there).fetchone()[0]):
            assert process.poll() is None
        process.kill()
        process.wait()
        committed = database.execute(there).fetchone()[0]
    assert 0 < committed < len(keys) * rounds
    assert Sink(uri, run_dir).ship() == len(keys) * rounds - committed
    for key in keys:
        assert points(uri, "killed", key) == [(step, step / 8) for step in range(rounds)]


def test_two_drivers_that_start_at_once_make_one_database_and_one_run(tmp_path):
    uri, run_dir = default_tracking_uri(tmp_path), tmp_path / "runs" / "twice"
    with started(run_dir) as journal:
        for step in range(300):
            journal.round(step, {f"task/m{i}": step / 8 for i in range(5)})
    with shipping(uri, run_dir) as one, shipping(uri, run_dir) as other:
        assert (one.wait(), other.wait()) == (0, 0)
    for i in range(5):
        assert points(uri, "twice", f"task/m{i}") == [(step, step / 8) for step in range(300)]


def shipping(uri, run_dir):
    code = "import sys; from r2m.tracking.mlflow_sink import Sink; Sink(sys.argv[1], sys.argv[2]).ship()"
    return subprocess.Popen([sys.executable, "-c", code, uri, run_dir])


@pytest.mark.parametrize("uri", ["http://me:hunter2@host:5000", "postgresql://me@host/db", "http://:hunter2@h"])
def test_credentials_in_the_uri_are_refused_and_not_repeated(tmp_path, uri):
    with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD") as error:
        Sink(uri, tmp_path)
    assert "hunter2" not in str(error.value)
    assert "me@" not in str(error.value)


def test_all_is_in_a_storage_whose_path_has_to_be_quoted(storage):
    """Database and artifacts, and no folder beside it that is named as the quoted path."""
    with started(storage / "runs" / "quoted") as journal:
        journal.round(0, {"reward/proxy": 0.5})
        journal.samples(0, [{"prompt": "p"}])
    uri = default_tracking_uri(storage)
    Sink(uri, storage / "runs" / "quoted").ship()
    (run,) = mlflow_runs(uri, "quoted")
    (path,) = (storage / "mlartifacts").rglob(f"{run.info.run_id}/artifacts/samples.json")
    assert json.loads(path.read_text())["data"] == [["p", 0]]
    assert [folder.name for folder in storage.parent.iterdir()] == [storage.name]
    assert sqlite3.connect(storage / "mlflow.db").execute("select count(*) from experiments").fetchone()[0] >= 1
