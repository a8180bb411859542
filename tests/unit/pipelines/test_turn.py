"""A pipeline's turn: what is due, what comes while it runs, who may run it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from r2m.errors import UserError
from r2m.pipelines import turn
from r2m.pipelines.execution import executions
from r2m.pipelines.turn import take_turn
from r2m.pipelines.work import Where
from tests.made_steps import Night

THREE = datetime(2026, 12, 1, 3, tzinfo=UTC)


class Clock(datetime):
    """This machine's, as the test has it."""

    shown = THREE

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return cls.shown


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    """Real clocks cannot be set here without setting them for everybody."""
    monkeypatch.setattr(turn, "datetime", Clock)
    Clock.shown = THREE
    return Clock


class Turns:
    def __init__(self, night: Night, waits: bool = False, **schedule: Any) -> None:
        self.night, self.go = night, night.folder / "go"
        step = night.step(waits=str(self.go)) if waits else night.step()
        self.pipeline = night.load({"a": step}, schedule={"cron": "0 3 * * *", **schedule})
        self.said = StringIO()

    def take(self, tick: str | None = "due") -> list[str]:
        console = Console(file=self.said, width=1000)
        ended = take_turn(self.pipeline, Where(str(self.night.storage)), tick, console=console)
        return [f"{run_id.split('-')[1]} {outcome}" for run_id, outcome in ended]

    def begin(self, tick: str | None = "due") -> threading.Thread:
        """In another thread, up to where its step waits."""
        thread = threading.Thread(target=self.take, args=(tick,), daemon=True)
        thread.start()
        while "begin a" not in self.night.log:
            thread.join(0.01)
            assert thread.is_alive()
        return thread

    def states(self) -> dict[str, str]:
        return {kept.stamp: kept.view.status for kept in executions(str(self.night.storage), "night")}


def test_a_tick_is_run_once_however_often_the_clock_calls(night: Night, clock: type[Clock]) -> None:
    turns = Turns(night)
    assert turns.take() == ["20261201T0300Z finished"]
    assert turns.take() == []
    assert "nothing is due" in turns.said.getvalue()
    clock.shown = THREE + timedelta(days=1)
    assert turns.take() == ["20261202T0300Z finished"]
    clock.shown = THREE - timedelta(hours=1)
    turns.take()  # the tick of the day before, which was never run
    assert set(turns.states()) == {"20261130T0300Z", "20261201T0300Z", "20261202T0300Z"}


@pytest.mark.parametrize(("missed", "ran", "skipped"), [
    ("latest", ["20261204T0300Z"], 2), ("all", ["20261202T0300Z", "20261203T0300Z", "20261204T0300Z"], 0),
])  # fmt: skip
def test_what_was_missed_is_run_or_written_down(night, clock, missed, ran, skipped) -> None:
    turns = Turns(night, missed=missed)
    turns.take()
    clock.shown = THREE + timedelta(days=3, hours=5)
    assert turns.take() == [f"{stamp} finished" for stamp in ran]
    assert list(turns.states().values()).count("skipped") == skipped
    assert turns.take() == []


def test_a_tick_during_a_run_is_skipped_and_written_down(night: Night, clock: type[Clock]) -> None:
    turns = Turns(night, waits=True)
    first = turns.begin()
    clock.shown = THREE + timedelta(days=1)
    assert turns.take() == []
    assert "skipped: process" in turns.said.getvalue()
    turns.go.touch()
    first.join()
    assert turns.states() == {"20261201T0300Z": "finished", "20261202T0300Z": "skipped"}
    assert turns.take() == []


def test_two_that_fire_at_once_run_the_tick_once(night: Night, clock: type[Clock]) -> None:
    turns = Turns(night, waits=True)
    first = turns.begin()
    assert turns.take() == []  # the holder is at this very tick: nothing is written down
    turns.go.touch()
    first.join()
    assert turns.states() == {"20261201T0300Z": "finished"}


def test_a_clock_that_does_not_call_while_it_runs_finds_it_queued_or_noted(night: Night, clock: type[Clock]) -> None:
    """As systemd, which does not start a service that is running."""
    turns = Turns(night, waits=True, overlap="queue")
    first = turns.begin()
    clock.shown = THREE + timedelta(days=1)
    turns.go.touch()
    first.join()
    assert turns.states() == {"20261201T0300Z": "finished", "20261202T0300Z": "finished"}


def test_skipped_while_it_ran_is_noted_by_the_run_itself(night: Night, clock: type[Clock]) -> None:
    turns = Turns(night, waits=True, missed="all")
    first = turns.begin()
    clock.shown = THREE + timedelta(days=1)
    turns.go.touch()
    first.join()
    assert turns.states() == {"20261201T0300Z": "finished", "20261202T0300Z": "skipped"}
    assert turns.take() == []
    assert turns.take("2026-12-02T03:00Z") == ["20261202T0300Z finished"]  # asked for by hand, it runs


def test_by_hand_a_pipeline_that_runs_is_refused_with_who_runs_it(night: Night, clock: type[Clock]) -> None:
    turns = Turns(night, waits=True)
    first = turns.begin()
    with pytest.raises(UserError, match=r"pipeline = 'night': process .* UTC"):
        turns.take(None)
    assert turns.take("2026-11-01T03:00Z") == []
    turns.go.touch()
    first.join()


@pytest.mark.parametrize("tick", ["tomorrow", "2026-12-01", "2026-12-01T03:00", "", "2026-13-01T03:00Z"])
def test_a_tick_that_is_no_time_is_one_line(night: Night, tick: str) -> None:
    with pytest.raises(UserError, match=r"--tick .*: due, or a time such as"):
        Turns(night).take(tick)
    assert not (night.storage / "pipelines").exists()


def test_due_wants_a_clock(night: Night) -> None:
    turns = Turns(night)
    turns.pipeline = night.load({"a": night.step()})
    with pytest.raises(UserError, match=r"--tick due: the file has no schedule\.cron"):
        turns.take()
