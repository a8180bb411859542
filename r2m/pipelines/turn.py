"""A pipeline's turn: its lease, the ticks that are due, an execution for each."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime

from rich.console import Console

from r2m.errors import UserError
from r2m.pipelines.driver import run_execution
from r2m.pipelines.execution import executions, open_execution, skip_execution, tick_of
from r2m.pipelines.lease import BusyError, held
from r2m.pipelines.schema import Pipeline
from r2m.pipelines.spec import check_room_for
from r2m.pipelines.ticks import Due, due
from r2m.pipelines.work import Where

DUE = "due"  # in the place of a tick: those of the schedule that have come
EXECUTED = ("finished", "failed", "skipped")  # stopped and interrupted ones are due again


def take_turn(
    pipeline: Pipeline, where: Where, tick: str | None = None, force: Collection[str] = (),
    only: Collection[str] = (), console: Console | None = None,
) -> list[tuple[str, str]]:  # fmt: skip
    """Run what is asked for: the execution of a tick, those that are due, or, without a tick, one by hand. Returns
    each one's name and outcome: finished, failed or stopped. None where nothing is due, or where the pipeline is run
    by somebody else and its schedule says to skip.

    Raises UserError for a tick that is none, a pipeline without a clock, a step that could not run here, and, without
    a tick, for a pipeline that somebody else is running.
    """
    console = console or Console(stderr=True, markup=False)
    asked = None if tick in (None, DUE) else tick_of(str(tick))
    if tick == DUE and pipeline.schedule.cron is None:
        raise UserError("--tick due: the file has no schedule.cron")
    check_room_for(pipeline, where)

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False)

    try:
        with held(where.storage, pipeline.name, pipeline.schedule.overlap, say) as lease:
            ended: list[tuple[str, str]] = []
            began, ticks = datetime.now(UTC), _due_ticks(pipeline, where, say) if tick == DUE else [asked]
            while ticks:
                execution = open_execution(pipeline, ticks.pop(0), where)
                outcome = run_execution(
                    execution, force=force, only=only, console=console, lost=lambda: lease.lost
                )  # fmt: skip
                ended.append((execution.run_id, outcome))
                if outcome == "stopped":
                    break
                if not ticks and tick == DUE:  # a clock needn't call again for what came meanwhile
                    ticks = _since(pipeline, where, began, say)
            return ended
    except BusyError as busy:
        if tick is None:
            raise UserError(f"pipeline = {pipeline.name!r}: {busy}") from None
        if tick == DUE:
            _skip(pipeline, where, busy.since, f"due while {busy}")
        say(f"{pipeline.name}: skipped: {busy}")
        return []


def _due(pipeline: Pipeline, where: Where) -> Due:
    there = executions(where.storage, pipeline.name)
    executed = [kept.tick for kept in there if kept.tick and kept.view.status in EXECUTED]
    return due(pipeline.schedule, executed, datetime.now(UTC))


def _due_ticks(pipeline: Pipeline, where: Where, say: Callable[[str], None]) -> list[datetime | None]:
    """To be run now. Those that are given up are written down as skipped."""
    found = _due(pipeline, where)
    for missed in found.missed:
        skip_execution(pipeline, missed, where, f"missed: {found.why}")
    if found.missed:
        first, last, n = found.missed[0], found.missed[-1], len(found.missed)
        say(f"{n} missed, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC: {found.why}")
    if not found.ticks:
        say(f"{pipeline.name}: nothing is due")
    return [*found.ticks]


def _since(pipeline: Pipeline, where: Where, began: datetime, say: Callable[[str], None]) -> list[datetime | None]:
    """What has come while the pipeline ran, and is to be run now: with `overlap: skip` nothing, which is noted."""
    if pipeline.schedule.overlap == "skip":
        _skip(pipeline, where, began, "due while an earlier one ran")
        return []
    return _due_ticks(pipeline, where, say) if _due(pipeline, where).ticks else []


def _skip(pipeline: Pipeline, where: Where, began: datetime, reason: str) -> None:
    """The ticks that have come since the holder began; those that had come before are the ones that it is at."""
    found = _due(pipeline, where)
    for tick in (*found.missed, *found.ticks):
        if tick > began:
            skip_execution(pipeline, tick, where, reason)
