"""A sweep in MLflow's SQLite store: one parent, its runs under it, whoever comes first and whatever breaks off."""

import json
import subprocess
import sys
from itertools import permutations

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow_store import CONFIG, mlflow_runs, points, started

from r2m.errors import UserError
from r2m.tracking import mlflow_entities as entities
from r2m.tracking.mlflow_sink import Sink, default_tracking_uri
from r2m.tracking.sync import sync

TREE = {"recipe": "forum", "seeds": [0, 1], "baselines": {"R2M (α = 0.5)": {"reward.alpha": 0.5}}}


def sweep(storage, name, arms=("t000", "rloo")):
    """Folders of a sweep and of its runs: the sweep's first."""
    folder = storage / "sweeps" / name
    with started(folder, TREE, experiment=f"sweeps/{name}", tags={"r2m.recipe": "forum"}) as journal:
        journal.round(1, {"sweep/value": 0.25, "sweep/trial": 3})
    folders = [folder]
    for arm in arms:
        config = CONFIG | {"reward": {"feedback": arm != "rloo"}, "run": {"tracking_uri": None}}
        folders.append(storage / "runs" / f"{name}-{arm}-s0")
        tags = {"r2m.sweep": name, "r2m.trial": arm}
        with started(folders[-1], config, experiment=f"sweeps/{name}", parent=name, tags=tags) as journal:
            journal.round(1, {"eval/gold": 0.5})
            journal.event("pruned" if arm == "rloo" else "finished")
    return folders


def all_runs(uri, name):
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name(f"sweeps/{name}").experiment_id])
    assert len({run.data.tags["r2m.run_id"] for run in runs}) == len(runs)
    return {run.data.tags["r2m.run_id"]: run for run in runs}


@pytest.mark.parametrize("order", permutations(range(3)), ids=str)
def test_the_runs_are_under_the_sweep_in_whatever_order_they_come(storage, order):
    uri, name = default_tracking_uri(storage), "order-" + "".join(map(str, order))
    folders = sweep(storage, name)
    for i in order:
        Sink(uri, folders[i]).ship()
    runs = all_runs(uri, name)
    assert runs.keys() == {name, f"{name}-t000-s0", f"{name}-rloo-s0"}
    parent, trial, baseline = runs[name], runs[f"{name}-t000-s0"], runs[f"{name}-rloo-s0"]
    assert [r.data.tags.get("mlflow.parentRunId") for r in (parent, trial, baseline)] == [
        None, parent.info.run_id, parent.info.run_id
    ]  # fmt: skip
    assert [r.data.tags["r2m.arm"] for r in (parent, trial, baseline)] == ["sweep", "R2M", "RLOO"]
    assert [r.info.status for r in (parent, trial, baseline)] == ["RUNNING", "FINISHED", "KILLED"]
    assert (baseline.data.tags["r2m.status"], baseline.data.tags["r2m.trial"]) == ("pruned", "rloo")
    assert (parent.info.run_name, parent.data.tags["r2m.recipe"]) == (name, "forum")
    assert "r2m.feedback" not in parent.data.tags
    assert parent.data.params == {
        "recipe": "forum",
        "seeds": "[0, 1]",
        "baselines.R2M (α = 0.5).reward.alpha".translate(dict.fromkeys(map(ord, "()="), "_")): "0.5",
    }
    assert points(uri, name, "sweep/value", f"sweeps/{name}") == [(1, 0.25)]
    assert points(uri, f"{name}-rloo-s0", "eval/gold", f"sweeps/{name}") == [(1, 0.5)]


@pytest.mark.parametrize("whose", [0, 1])
@pytest.mark.parametrize("nth", range(1, 4))
def test_broken_off_after_any_request_it_is_taken_up_without_a_run_twice(storage, monkeypatch, whose, nth):
    """The store has the nth change, and the one who asked for it hears of nothing: it dies, or tries again."""
    uri, name = default_tracking_uri(storage), f"broken-{whose}-{nth}"
    folders, count = sweep(storage, name, ["t000"]), 0

    def then_break(method):
        def call(*args, **kwargs):
            nonlocal count
            result = method(*args, **kwargs)
            count += 1
            if count == nth:
                raise MlflowException("connection aborted")
            return result

        return call

    with monkeypatch.context() as patch:
        for change in ("create_run", "log_batch"):
            patch.setattr(MlflowClient, change, then_break(getattr(MlflowClient, change)))
        sink = Sink(uri, folders[whose])
        with pytest.raises(MlflowException, match="connection aborted"):
            sink.ship()
    Sink(uri, folders[1 - whose]).ship()
    sink.ship()
    runs = all_runs(uri, name)
    assert runs.keys() == {name, f"{name}-t000-s0"}
    assert runs[f"{name}-t000-s0"].data.tags["mlflow.parentRunId"] == runs[name].info.run_id
    assert {run.data.tags["r2m.config_hash"] for run in runs.values()} == {"abc"}
    assert points(uri, name, "sweep/value", f"sweeps/{name}") == [(1, 0.25)]


def test_processes_that_start_at_once_make_one_sweep(tmp_path):
    uri, folders = default_tracking_uri(tmp_path), sweep(tmp_path, "at-once")
    code = "import sys; from r2m.tracking.mlflow_sink import Sink; Sink(sys.argv[1], sys.argv[2]).ship()"
    processes = [subprocess.Popen([sys.executable, "-c", code, uri, folder]) for folder in folders]
    assert [process.wait() for process in processes] == [0, 0, 0]
    runs = all_runs(uri, "at-once")
    parents = {run.data.tags.get("mlflow.parentRunId") for run in runs.values()}
    assert len(runs) == 3
    assert parents == {None, runs["at-once"].info.run_id}


def test_the_file_the_answer_and_the_ranking_as_a_table_are_with_the_sweep(storage):
    uri, (folder, *_) = default_tracking_uri(storage), sweep(storage, "answered", [])
    (folder / "sweep.yaml").write_text("recipe: forum\n")
    Sink(uri, folder).ship()
    with started(folder.parent / "other" / "x"):  # the ranking need not be in the sweep's folder
        ranking = folder.parent / "other" / "ranking.json"
    ranking.write_text(entities.mlflow_table([{"arm": "t003", "value": 0.5}, {"arm": "rloo", "kl": 1.5}]))
    assert json.loads(ranking.read_text()) == {
        "columns": ["arm", "value", "kl"], "data": [["t003", 0.5, None], ["rloo", None, 1.5]]
    }  # fmt: skip
    (folder / "report.html").write_text("<p>report</p>")
    Sink(uri, folder).ship([ranking, folder / "report.html"])
    Sink(uri, folder).ship([ranking])
    run = all_runs(uri, "answered")["answered"]
    there = {file.path for file in MlflowClient(uri).list_artifacts(run.info.run_id)}
    assert there == {"sweep.yaml", "report.html", "ranking.json"}
    tables = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert tables == [{"path": "ranking.json", "type": "table"}]


def test_a_run_with_samples_and_a_ranking_names_both_tables(storage):
    uri, folder = default_tracking_uri(storage), storage / "runs" / "both"
    with started(folder) as journal:
        journal.samples(1, [{"prompt": "p"}])
        Sink(uri, folder).ship()
        (folder / "ranking.json").write_text(entities.mlflow_table([]))
        journal.samples(2, [{"prompt": "q"}])
        Sink(uri, folder).ship([folder / "ranking.json"])
    (run,) = mlflow_runs(uri, "both")
    tables = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert [table["path"] for table in tables] == ["samples.json", "ranking.json"]


def synced(storage, name):
    return list(sync(storage, name))


class TestSync:
    def test_a_sweep_brings_its_own_runs_and_no_others(self, storage):
        folders = sweep(storage, "whole")
        sweep(storage, "whole-other")
        (folders[0] / "report.html").write_text("report")
        (storage / "runs" / "whole-t009-s0").mkdir()
        (storage / "runs" / "whole-t009-s0" / "journal.jsonl").touch()  # not started yet
        assert synced(storage, "whole") == [("whole", 2), ("whole-rloo-s0", 1), ("whole-t000-s0", 1)]
        assert synced(storage, "whole") == [("whole", 0), ("whole-rloo-s0", 0), ("whole-t000-s0", 0)]
        runs = all_runs(default_tracking_uri(storage), "whole")
        assert len(runs) == 3
        files = MlflowClient(default_tracking_uri(storage)).list_artifacts(runs["whole"].info.run_id)
        assert [file.path for file in files] == ["report.html"]

    def test_to_where_the_runs_were_tracked(self, storage, tmp_path):
        uri = default_tracking_uri(storage)
        with started(tmp_path / "sweeps" / "far", TREE, experiment="sweeps/far"):
            pass
        config = CONFIG | {"run": {"tracking_uri": uri}}
        with started(tmp_path / "runs" / "far-t000-s0", config, experiment="sweeps/far", parent="far") as journal:
            journal.round(1, {"eval/gold": 0.5})
        assert synced(tmp_path, "far") == [("far", 0), ("far-t000-s0", 1)]
        assert all_runs(uri, "far").keys() == {"far", "far-t000-s0"}
        assert not (tmp_path / "mlflow.db").exists()

    def test_one_run(self, storage):
        with started(storage / "runs" / "alone", CONFIG | {"run": {"tracking_uri": None}}) as journal:
            journal.round(1, {"eval/gold": 0.5})
        assert synced(storage, "alone") == [("alone", 1)]

    def test_what_is_not_there_is_told_with_what_there_is(self, tmp_path):
        started(tmp_path / "sweeps" / "lr").close()
        started(tmp_path / "runs" / "lr-t000-s0").close()
        with pytest.raises(UserError, match=r"NAME = 'rl': .*; there are: lr, lr-t000-s0$"):
            synced(tmp_path, "rl")
