"""Cron expressions, read by cronsim as Debian's cron reads them.

By its rules a daily 02:30 that a night of daylight saving leaves out is at 03:00, one that it has twice is at the
first, and what is due every hour, or oftener, goes by the hours that pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

FIELDS = "minute hour day-of-month month day-of-week"


def check_cron(expression: str) -> str:
    """The same. Raises ValueError for what is none, or never is."""
    allowed = f"five fields are allowed, {FIELDS}, such as 0 3 * * * (03:00) or 30 1 * * MON"
    if len(expression.split()) != 5:
        raise ValueError(allowed)
    try:
        read = parsed_cron(expression)
        next(read)
    except CronSimError as error:
        raise ValueError(f"{str(error).replace('Bad', 'bad')}; {allowed}") from None
    except StopIteration:
        raise ValueError(f"there is no such day; {allowed}") from None
    if min(read.days) < 0 or any(isinstance(day, tuple) for day in read.weekdays):
        raise ValueError(f"L, W and # are not every cron's; {allowed}")
    return expression


def parsed_cron(expression: str) -> CronSim:
    """With its fields as sets: minutes, hours, days, months, weekdays (0 and 7: Sunday); `day_and`: both days hold."""
    return CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC))


def ticks_between(cron: str, zone: ZoneInfo, after: datetime, until: datetime) -> Iterator[datetime]:
    """The times in (after, until] in UTC, each once, in order."""
    last = after
    for time in CronSim(cron, after.astimezone(zone)):
        tick = time.astimezone(UTC)
        if tick > until:
            return
        if tick > last:  # begun inside an hour that there is twice, cronsim says the first of its times again
            yield tick
            last = tick
