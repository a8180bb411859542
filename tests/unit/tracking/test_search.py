"""Runs found by their names, by their sweep's name and by a filter in a real MLflow store."""

import pytest
from mlflow_store import CONFIG, started

from r2m.errors import UserError
from r2m.runs.find import journals, sweep_runs
from r2m.tracking.mlflow_sink import Sink, default_tracking_uri
from r2m.tracking.search import search


def run(storage, name, **start):
    with started(storage / "runs" / name, **start) as journal:
        journal.round(1, {"eval/gold": 0.5})
    return storage / "runs" / name


@pytest.fixture
def found(tmp_path):
    """A storage with two runs of a sweep, and one whose name begins like theirs."""
    with started(tmp_path / "sweeps" / "s", {"recipe": "forum"}):
        pass
    for name in ("s-rloo-s0", "s-t000-s0"):
        run(tmp_path, name, parent="s")
    run(tmp_path, "s-other")
    return tmp_path


def test_a_sweeps_runs_are_those_that_say_so(found):
    assert list(sweep_runs(found, "s")) == ["s-rloo-s0", "s-t000-s0"]
    assert sweep_runs(found, "t") == {}


def test_journals_come_in_the_order_of_the_names_each_once(found):
    views, missing = journals(found, ["s-other", "s", "nothing", "s-other"])
    assert list(views) == ["s-other", "s-rloo-s0", "s-t000-s0"]
    assert missing == ["nothing"]
    assert views["s-other"].rounds == {1: {"eval/gold": 0.5}}


def test_nothing_outside_the_storage_is_read(found):
    views, missing = journals(found / "runs" / "s-other", ["../s-other", "../../runs/s-other", ".."])
    assert (views, len(missing)) == ({}, 3)


def test_a_filter_finds_runs_in_all_experiments_and_no_sweep(storage):
    rloo = CONFIG | {"reward": {"feedback": False, "lr": 2e-4}}
    run(storage, "found-r2m", tags={"r2m.trial": "found"})
    run(storage, "found-rloo", config=rloo, experiment="another", tags={"r2m.trial": "found"})
    with started(storage / "sweeps" / "found", {"recipe": "forum"}, tags={"r2m.trial": "found"}):
        pass
    uri = default_tracking_uri(storage)
    for folder in ("runs/found-r2m", "runs/found-rloo", "sweeps/found"):
        Sink(uri, storage / folder).ship()
    assert sorted(search(uri, "tags.`r2m.trial` = 'found'")) == ["found-r2m", "found-rloo"]
    assert search(uri, "tags.`r2m.trial` = 'found' and tags.`r2m.arm` = 'RLOO'") == ["found-rloo"]
    assert search(uri, "params.`reward.lr` = '0.0002'") == ["found-rloo"]
    assert search(uri, "tags.`r2m.trial` = 'none'") == []


def test_a_filter_that_mlflow_refuses_is_one_line(storage):
    with pytest.raises(UserError, match="--filter 'nonsense': ") as error:
        search(default_tracking_uri(storage), "nonsense")
    assert "\n" not in str(error.value)


def test_a_store_that_is_not_there_is_an_error_and_is_not_made(tmp_path):
    with pytest.raises(UserError, match=r"mlflow\.db': no such file; r2m sync RUN makes it"):
        search(default_tracking_uri(tmp_path), "")
    assert not (tmp_path / "mlflow.db").exists()
    with pytest.raises(UserError, match="http://\\*\\*\\*@host"):
        search("http://user:secret@host/", "")
