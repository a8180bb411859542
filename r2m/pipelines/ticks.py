"""When a pipeline is due: the ticks of its cron expression, and what becomes of those that passed without a run.

cronsim reads the expressions, as Debian's cron has them: at a change to summer time a tick in the hour that is left
out comes right after it, and one of the hour that occurs twice comes once, unless it is of every hour or minute.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim

from r2m.pipelines.schema import Schedule

LONGEST = timedelta(days=20_000)  # between two ticks of an expression: check_cron
MOST_LISTED = 1000  # ticks that are told apart: of more, the newest


@dataclass(frozen=True)
class Due:
    """`ticks`: to be run now, in order. `missed`: given up, in order, for the reason `why`."""

    ticks: tuple[datetime, ...] = ()
    missed: tuple[datetime, ...] = ()
    why: str = ""


def ticks_back(cron: str, zone: ZoneInfo, now: datetime, after: datetime, most: int = MOST_LISTED) -> list[datetime]:
    """In UTC: later than `after`, not later than `now`, the newest first; no more than `most`."""
    # Later than now: backwards, too, cronsim leaves out the time that it begins with, and, begun in the second pass
    # of an hour that there is twice, what the first had.
    local = (now + timedelta(hours=3)).astimezone(zone)
    back = (tick.astimezone(UTC) for tick in CronSim(cron, local, reverse=True))
    found = takewhile(lambda tick: tick > after, (tick for tick in back if tick <= now))
    return [tick for tick, _ in zip(found, range(most), strict=False)]


def due(schedule: Schedule, executed: Collection[datetime], now: datetime) -> Due:
    """What to run at `now`.

    Ticks count that come after the newest that was executed; where none was, the newest one alone. What a clock has
    executed that was ahead is not run again once it is right, and else of no account. By `schedule.missed`: skip runs
    one that is at most `late_hours` old, latest the newest, all those that there are, at most `most` of them.
    """
    assert schedule.cron is not None
    newest = max((tick for tick in executed if tick <= now), default=None)
    if newest is None:
        ticks = ticks_back(schedule.cron, schedule.zone, now, now - LONGEST, most=1)
    else:
        ticks = ticks_back(schedule.cron, schedule.zone, now, newest)
    if schedule.missed == "skip":
        late = timedelta(hours=schedule.late_hours)
        most, why = int(bool(ticks) and now - ticks[0] <= late), f"more than {schedule.late_hours:g} h late"
    else:
        most = schedule.most if schedule.missed == "all" else 1
        why = "a later one is due" if most == 1 else f"more than {most} were due"
    return Due(tuple(reversed(ticks[:most])), tuple(reversed(ticks[most:])), why)
