"""Which of a schedule's times are to be run now. Nothing is remembered for it but the executions that there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from r2m.config import explain
from r2m.errors import UserError
from r2m.pipelines.cron import ticks_between
from r2m.pipelines.schema import Schedule


@dataclass(frozen=True)
class Due:
    """`ticks`: to be run now, in order. `missed`: given up, with the reason. All in UTC."""

    ticks: list[datetime]
    missed: dict[datetime, str]


def due(
    schedule: Schedule, executed: Iterable[datetime], now: datetime, ran: Sequence[tuple[datetime, datetime]] = ()
) -> Due:
    """`executed`: the ticks that have an execution; `ran`: from when to when executions ran. Times with an offset.

    Only what is later than the last tick executed up to now counts, so none is run twice where the clock is set back,
    and one of a clock that was ahead for a while stops nothing. Where none has been executed yet, the one tick of the
    last `late_hours` is due, if there is one. Of several, `missed: all` runs the last `most`, and all else the last.
    A tick that fell into a run is given up with `overlap: skip`, and counts from the run's end with `queue`.

    Raises UserError where the schedule has no cron.
    """
    if schedule.cron is None:
        raise UserError("schedule.cron = None: an expression such as '0 3 * * *' is needed to say what is due")
    late, most = timedelta(hours=schedule.late_hours), schedule.most if schedule.missed == "all" else 1
    last = max((tick for tick in executed if tick <= now), default=None)
    if last is None:
        last, most = now - late, 1
    missed: dict[datetime, str] = {}
    ticks = []
    for tick in ticks_between(schedule.cron, schedule.zone, last, now):
        if schedule.overlap == "skip" and any(start <= tick <= end for start, end in ran):
            missed[tick] = "an execution ran (overlap: skip)"
        else:
            ticks.append(tick)
    limit = f"more than the last {most} (most)" if schedule.missed == "all" else "a later one has come"
    missed |= dict.fromkeys(ticks[:-most], limit)
    ticks = ticks[-most:]
    if schedule.missed == "skip":
        free = {tick: max([tick, *(end for start, end in ran if start <= tick <= end)]) for tick in ticks}
        too_late = [tick for tick in ticks if now - free[tick] > late]
        missed |= dict.fromkeys(too_late, f"late by more than {schedule.late_hours:g} h (missed: skip)")
        ticks = [tick for tick in ticks if tick not in too_late]
    return Due(ticks, dict(sorted(missed.items())))


def clocked(schedule: Schedule, cron: str | None, time_zone: str | None) -> Schedule:
    """The schedule with --cron and --time-zone in the place of its own. Raises UserError."""
    given = {"cron": cron, "time_zone": time_zone}
    tree = schedule.model_dump() | {key: value for key, value in given.items() if value is not None}
    try:
        return Schedule.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"schedule.{explain(error, Schedule)}") from None
