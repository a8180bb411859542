"""What a run would do, said before anything is written."""

from __future__ import annotations

import os
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from rich.table import Table

from r2m.errors import UserError
from r2m.pipelines.contents import Contents
from r2m.pipelines.forecast import forecast
from r2m.pipelines.memo import write_entry
from r2m.pipelines.spec import key_of, load_pipeline, step_settings
from r2m.pipelines.steps.train import TrainStep, _keys
from r2m.pipelines.work import Where
from tests.conftest import Command
from tests.made_executions import MadeExecutions

STEPS: dict[str, Any] = {
    "sft": {"use": "sft", "recipe": "forum"},
    "reward": {"use": "reward-model", "recipe": "forum", "policy": "${sft.model}"},
    "arms": {
        "use": "train", "recipe": "forum", "seeds": [0, 1, 2],
        "arms": {"RLOO": {"reward.feedback": False}, "R2M": {}},
        "set": {
            "policy.model": "${sft.model}", "reward.model": "${reward.model}", "run.device": "cpu",
            "algorithm.rounds": 10, "algorithm.queries": 16,
        },
    },
    "alarm": {"use": "alarm-check", "runs": "${arms.runs}"},
    "assessed": {"use": "evaluate", "runs": "${arms.runs}", "needs": ["alarm"]},
}  # fmt: skip


class Nights:
    def __init__(self, folder: Path) -> None:
        self.file, self.where = folder / "night.yaml", Where(str(folder / "storage"))
        self.made = MadeExecutions(folder / "storage")

    def load(self, **steps: Any) -> Any:
        tree = {name: step | steps.get(name, {}) for name, step in STEPS.items()}
        self.file.write_text(yaml.safe_dump({"steps": tree}, sort_keys=False))
        return load_pipeline(self.file)

    def said(self, *force: str, **steps: Any) -> tuple[dict[str, list[str]], list[Any]]:
        """Rows of the steps by their names, and what else there is."""
        table, *rest = forecast(self.load(**steps), self.where, force)
        assert isinstance(table, Table)
        columns = [list(column.cells) for column in table.columns]
        return {str(row[0]).split()[0]: [str(cell) for cell in row[1:]] for row in zip(*columns, strict=True)}, rest

    def keep_sft(self, model: str) -> None:
        """The first step's result, of a minute and a second."""
        contents = Contents(self.where.storage, self.made.memo.folder)
        key = key_of("sft", step_settings(self.load(), "sft", {}), contents, "night")
        with self.made.memo.making(f"sft-{key}") as made:
            assert made is not None
            shutil.copytree(model, made[0] / "model")
            outputs = {"model": str(made[0] / "model")}
            write_entry(made[0], outputs, {"model": "folder"}, "night-20261201T0300Z-abcdef.sft", 61.0)


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(tmp_path)


@pytest.fixture
def second(nights: Nights, forum_models: tuple[str, str]) -> Nights:
    """With the supervised policy there."""
    nights.keep_sft(forum_models[0])
    return nights


def test_the_first_night(nights: Nights) -> None:
    rows, rest = nights.said()
    assert list(rows) == ["sft", "reward", "arms", "alarm", "assessed"]
    assert [row[0] for row in rows.values()] == ["", "sft", "sft\nreward", "arms", "alarm\narms"]
    assert [row[1] for row in rows.values()] == ["will run"] * 5
    assert (rows["arms"][2], rows["assessed"][2]) == ("6 runs", "6 runs")
    plan, *lines = rest
    assert plan.title == "Plan of arms"
    cells = dict(zip(plan.columns[0].cells, plan.columns[1].cells, strict=True))
    assert cells["runs"].startswith("6, ")
    assert cells["trajectories"] == f"at most {6 * 10 * 16 * 4:,} in all"
    assert "time, a guess" in cells
    assert lines[0] == "5 steps: 5 will run"
    assert lines[-1].startswith("disk: at most ")
    assert not Path(nights.where.storage).exists()


def test_what_is_there_says_who_made_it_when_and_how_long_it_took(second: Nights) -> None:
    rows, rest = second.said()
    state, about = rows["sft"][1:]
    assert state == "cached"
    assert about.startswith("made 20")
    assert about.endswith("UTC, 61 s, by night-20261201T0300Z-abcdef")
    assert [row[1] for row in rows.values()] == ["cached"] + ["will run"] * 4
    assert rest[1] == "5 steps: 1 cached, 4 will run"


def test_a_setting_that_changed_and_what_may_come_after_it(second: Nights) -> None:
    """Of kinds of which there is no result at all, none can be found."""
    second.made.entry("alarm-check-0123456789ab", runs=[])
    rows, _ = second.said(sft={"set": {"task.sft_steps": 5}})
    assert [row[1] for row in rows.values()] == ["will run", "will run", "will run", "may run", "will run"]
    assert rows["alarm"][2] == "if arms comes out new"


def test_what_it_took_last_time_is_the_steps_own(nights: Nights) -> None:
    """Not another pipeline's, nor another step's of the same kind."""
    for number, (pipeline, seconds) in enumerate([("night", 100.0), ("other", 5.0)]):
        name = nights.made.entry(f"sft-00000000000{number}", pipeline=pipeline)
        entry = nights.made.memo.folder / name / "entry.json"
        entry.write_text(entry.read_text().replace("61.0", str(seconds)).replace("abcdef.s", "abcdef.sft"))
    rows, rest = nights.said()
    assert rows["sft"][1:] == ["will run", "last time 100 s"]
    assert "last time 100 s for 1 of these 5, one after another" in rest


def test_what_is_forced_runs(second: Nights) -> None:
    rows, _ = second.said("sft")
    assert rows["sft"][1] == "will run"
    with pytest.raises(UserError, match="--force 'x': sft, reward, arms, alarm, assessed are allowed"):
        second.said("x")


def test_runs_that_are_there_are_no_part_of_the_plan(nights: Nights) -> None:
    """Of three seeds of two arms: R2M's first two. What is missing is planned as three seeds of both arms, at most;
    without RLOO's, as one seed of one."""
    own = {"set": {"run.device": "cpu"}}
    step = {key: value for key, value in (STEPS["arms"] | own).items() if key != "use"}
    keys = _keys(TrainStep.model_validate(step), Contents("/none", Path("/")))

    def planned(*force: str) -> tuple[list[str], str]:
        rows, rest = nights.said(*force, arms=own)
        return rows["arms"][1:], str(next(iter(rest[0].columns[1].cells))).split(",")[0]

    for seed in (0, 1):
        nights.made.entry(f"run-{keys['R2M', seed]}", runs=["a"], sweeps=["b"])
    assert planned() == (["will run", "4 runs, 2 more are there"], "6")
    for seed in (0, 1, 2):
        nights.made.entry(f"run-{keys['RLOO', seed]}", runs=["a"], sweeps=["b"])
    assert planned() == (["will run", "1 run, 5 more are there"], "1")
    assert planned("arms") == (["will run", "6 runs"], "6")


def test_what_has_no_room_is_said_and_refused(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r2m.sweeps.room._machine", lambda: {"cpus": 1, "gpus": 0, "node_gib": 1.0})
    told: list[Any] = []
    with pytest.raises(UserError, match=r"^steps\.arms: no trial fits"):
        told.extend(forecast(nights.load(), nights.where))
    console = Console(file=StringIO(), width=200)
    console.print(told[0])
    assert "cannot run here: no trial fits" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_dry_run_in_eighty_columns_writes_nothing(
    second: Nights, r2m: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    second.load()

    def seen() -> list[tuple[str, int]]:
        return sorted((str(p), os.stat(p).st_mtime_ns) for p in Path(second.where.storage).rglob("*"))

    before = seen()
    code, out, err = r2m("pipeline", "run", str(second.file), "--dry-run", "--storage", second.where.storage)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert "will run" in out
    assert seen() == before
