"""The executions as `r2m pipeline status` shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2m.cli.common import out
from r2m.pipelines.execution import executions, maker
from r2m.runs.journal import Journal
from tests.conftest import Command
from tests.made_executions import SFT, MadeExecutions


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeExecutions:
    monkeypatch.setattr(out, "_width", 140)  # which the terminal's has been since it was made
    return MadeExecutions(tmp_path / "storage")


@pytest.fixture
def rows(made: MadeExecutions, r2m: Command):  # type: ignore[no-untyped-def]
    """Cells of the tables' rows."""

    def rows(*words: str) -> list[list[str]]:
        code, out, err = r2m("pipeline", "status", *words, "--storage", str(made.storage))
        assert (code, err) == (0, "")
        return [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]

    return rows


def test_how_each_ended_newest_first(made: MadeExecutions, rows) -> None:  # type: ignore[no-untyped-def]
    made.execution(1, SFT)
    made.execution(2, SFT, end="failed", state="done", reason="s: no room")
    made.execution(3, end="stopped", reason="asked to stop")
    made.execution(4, end="skipped", reason="due while process 7 was at it")
    made.execution(5, end="running", name="other")
    running = made.execution(6, end="running")
    with Journal(running.journal):
        found = rows()
    assert [[row[0], row[1], row[2], row[4], row[5]] for row in found] == [
        ["night", "2026-12-06 03:00", "running", "", ""],
        ["other", "2026-12-05 03:00", "interrupted", "", ""],
        ["night", "2026-12-04 03:00", "skipped", "", "due while process 7 was at it"],
        ["night", "2026-12-03 03:00", "stopped", "", "asked to stop"],
        ["night", "2026-12-02 03:00", "failed", "1 ran", "s: no room"],
        ["night", "2026-12-01 03:00", "finished", "1 cached", ""],
    ]


def test_a_failure_that_was_mended_is_not_its_verdict(made: MadeExecutions) -> None:
    execution = made.execution(1, end="failed", reason="s: no room")
    with Journal(execution.journal) as journal:
        journal.event("resume")
        journal.event("verdict", text="promoted: R2M is better", promoted=True)
        journal.event("finished")
    (kept,) = executions(str(made.storage))
    assert (kept.state, kept.verdict) == ("finished", "promoted: R2M is better")


def test_pauses_are_no_part_of_how_long_it_took(made: MadeExecutions, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0, 110.0, 150.0, 1000.0, 1030.0])
    monkeypatch.setattr("r2m.runs.journal.time.time", lambda: next(clock))
    execution = made.open("night", 1)  # at 0
    with Journal(execution.journal) as journal:
        for name in ("resume", "step", "stopped", "resume", "finished"):
            journal.event(name, step="s")
    (kept,) = executions(str(made.storage))
    assert kept.seconds == 50 + 30
    assert kept.since == 1000


def test_of_one_pipeline_its_newest_ones_steps(made: MadeExecutions, rows) -> None:  # type: ignore[no-untyped-def]
    made.execution(1, SFT)
    made.execution(2, end="running", key="0123456789ab")
    made.execution(3, name="other")
    found = rows("night")
    assert [row[0] for row in found] == ["2026-12-02 03:00", "2026-12-01 03:00", "s (sft)"]
    assert found[-1] == ["s (sft)", "interrupted", "", ""]
    made.execution(4, SFT)
    (kept,) = [kept for kept in executions(str(made.storage), "night") if kept.stamp == "20261204T0300Z"]
    assert rows("night")[-1] == ["s (sft)", "cached", "61 s", f"by {kept.folder.name}"]


def test_at_most_twenty_unless_all_are_asked_for(made: MadeExecutions, r2m: Command) -> None:
    for day in range(1, 23):
        made.execution(day)
    words = ("pipeline", "status", "--storage", str(made.storage))
    _, out, _ = r2m(*words)
    assert out.count("finished") == 20
    assert "2026-12-02 03:00" not in out
    assert out.endswith("2 older ones: --all\n")
    _, out, _ = r2m(*words, "--all")
    assert out.count("finished") == 22


def test_by_hand_it_has_the_time_at_which_it_began(made: MadeExecutions, rows) -> None:  # type: ignore[no-untyped-def]
    from r2m.pipelines.execution import open_execution
    from r2m.pipelines.work import Where

    open_execution(made.open("night", 1).pipeline, None, Where(str(made.storage)))
    assert [row[1] for row in rows()][1] == "by hand"


def test_none_has_run(made: MadeExecutions, r2m: Command) -> None:
    code, out, _ = r2m("pipeline", "status", "--storage", str(made.storage))
    assert (code, out) == (0, f"no pipeline has run in {made.storage}\n")
    assert not made.storage.exists()
    made.execution(1)
    code, out, err = r2m("pipeline", "status", "nigth", "--storage", str(made.storage))
    assert (code, out) == (2, "")
    assert err == f"error: NAME = 'nigth': no such pipeline has run in {made.storage}; there are: night\n"


def test_who_made_a_result() -> None:
    assert maker("a-20261201T0300Z-20261201T0300Z-abcdef.s") == ("a-20261201T0300Z", "s")
    assert maker("a.b-20261201T030000Zm-abcdef.step") == ("a.b", "step")
    assert maker("something else") == ("", "")
