"""What a small night comes to where nothing disturbs it, worked out in this process by what the steps are made of;
and what is to be there once, however often it was killed."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from processes import RELATIVE, assert_same_rounds, states, undisturbed
from small_night import PAIRS, PROMPTS, TASK

from r2m.config import load, override
from r2m.evaluation.assess import assess
from r2m.pipelines.contents import Contents
from r2m.pipelines.memo import Entry, Memo
from r2m.results.comparison import compare_runs
from r2m.results.comparison_text import numbers
from r2m.results.table import Result
from r2m.runs.journal import JournalReader, JournalView, read
from r2m.runs.records import Record
from r2m.stages.forum import train_reward, train_sft
from r2m.stages.progress import silent
from r2m.sweeps.sweep import open_sweep, runs_of
from r2m.tracking.mlflow_sink import default_tracking_uri


def entries(storage: Path) -> dict[str, list[Entry]]:
    """By kind, `run` for those of a single run."""
    found: dict[str, list[Entry]] = {}
    for entry in Memo(str(storage)).entries():
        found.setdefault(entry.name.rpartition("-")[0], []).append(entry)
    return found


def only(storage: Path, use: str) -> Entry:
    (entry,) = entries(storage)[use]
    return entry


def assert_models_as_undisturbed(storage: Path, tmp_path: Path) -> None:
    contents = Contents(str(tmp_path), tmp_path)
    sft, reward = tmp_path / "sft", tmp_path / "reward"
    for folder in (sft, reward):
        folder.mkdir()
    train_sft(task_of(TASK), sft, silent)
    train_reward(task_of(PAIRS), sft, sft, reward, silent)
    assert contents.place(only(storage, "sft").outputs["model"]) == contents.place(str(sft))
    assert contents.place(only(storage, "reward-model").outputs["model"]) == contents.place(str(reward))


def task_of(settings: dict[str, Any]) -> Any:
    return load("forum", [override(key, value) for key, value in settings.items()]).task


def assert_runs_as_undisturbed(storage: Path, tmp_path: Path) -> None:
    """Those of the search and of the arms, and what is made of the latter."""
    search, train = only(storage, "sweep").outputs, only(storage, "train").outputs
    sweeps = [*search["sweeps"], *train["sweeps"]]
    views = {name: view for sweep in sweeps for name, view in sweep_views(storage, sweep)}
    expected = {name: undisturbed(view, tmp_path) for name, view in views.items()}
    for name, view in views.items():
        assert view.status == "finished"
        assert_same_rounds(expected[name], view)
    (best,) = search["runs"]
    value = {name: view.series("eval/gold")[1][-1] for name, view in expected.items()}
    trials = {name: value[name] for name in expected if name.endswith(("t000-s0", "t001-s0"))}
    winner = max(trials, key=lambda name: trials[name])
    assert best == winner.replace("-s0", "-s10")
    assert search["settings"] == {"reward.alpha": 0.25 if "t000" in winner else 0.75}

    alone = str(tmp_path / "undisturbed")
    results = [Result(expected[name], assess(alone, name, prompts=PROMPTS)) for name in train["runs"]]
    comparison = json.loads(Path(only(storage, "compare").outputs["comparison"]).read_text())
    own = json.loads(json.dumps(numbers(*compare_runs(results, None, "RLOO"))))
    assert_alike(comparison["setups"], own["setups"])
    alarms = json.loads(Path(only(storage, "alarm-check").outputs["alarms"]).read_text())
    assert alarms["raised"].keys() == {name for name in train["runs"] if expected[name].alarm}


def assert_alike(one: Any, other: Any, at: str = "") -> None:
    """Numbers to RELATIVE, but for times; texts have them rounded, and are not looked at."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), at
        for key in one.keys() - {"worker_s"}:
            assert_alike(one[key], other[key], f"{at}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), at
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_alike(a, b, f"{at}.{i}")
    elif isinstance(one, float) and not isinstance(one, bool):
        assert one == pytest.approx(other, rel=RELATIVE, abs=RELATIVE), at
    elif not isinstance(one, str):
        assert one == other, at


def sweep_views(storage: Path, sweep: str) -> list[tuple[str, JournalView]]:
    opened = open_sweep(str(storage), sweep)
    assert set(states(opened)) <= {"COMPLETE"}
    return list(runs_of(opened).items())


def assert_nothing_twice(storage: Path, uses: Counter[str]) -> None:
    """`uses`: entries of each kind that there are to be."""
    assert Counter({use: len(of) for use, of in entries(storage).items()}) == uses
    left = [path.name for path in (storage / "memo").iterdir() if path.name.endswith((".partial", ".kept"))]
    assert left == []
    made = [entry for use in ("sweep", "train") for entry in entries(storage)[use]]
    sweeps = {name for entry in made for name in entry.outputs["sweeps"]}
    assert {path.name for path in (storage / "sweeps").iterdir()} == sweeps
    runs = {name for sweep in sweeps for name, _ in sweep_views(storage, sweep)}
    assert {path.name for path in (storage / "runs").iterdir()} == runs
    for name in runs:
        assert_rounds_once(JournalReader(storage / "runs" / name / "journal.jsonl").new_records())


def assert_rounds_once(records: list[Record]) -> None:
    """Each once, or again from the last checkpoint on; one end."""
    expected, kept = 1, 0
    for record in records:
        if record["kind"] == "round":
            assert record["step"] == expected
            expected += 1
        elif record.get("name") == "checkpoint":
            kept = record["step"]
        elif record.get("name") == "resume":
            assert record["step"] == kept
            expected = kept + 1
    assert [record.get("name") for record in records].count("finished") == 1


def assert_mlflow_once(storage: Path, execution: str, steps: set[str]) -> None:
    """A run for the execution and one for each of its steps that ran here, one for each sweep and each run of it: all
    of them ended."""
    client = MlflowClient(default_tracking_uri(storage))
    names = Counter[str]()
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            assert run.info.status == "FINISHED", run.data.tags["r2m.run_id"]
            names[run.data.tags["r2m.run_id"]] += 1
    expected = {execution} | {f"{execution}.{step}" for step in steps}
    expected |= {path.name for kind in ("sweeps", "runs") for path in (storage / kind).iterdir()}
    assert names == Counter(expected)


def events_of(storage: Path, execution: str) -> list[Record]:
    return read(storage / "pipelines" / execution / "journal.jsonl").events
