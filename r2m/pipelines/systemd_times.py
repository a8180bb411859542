"""Cron expressions in the words that systemd has for times."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from cronsim import CronSim

from r2m.errors import UserError
from r2m.pipelines.schema import Schedule

DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")  # cron's numbers
DAYS_AHEAD = 5 * 366  # whose times are looked at
NO_OFFSET = timedelta(0)


def on_calendar(schedule: Schedule) -> str:
    """A cron expression as systemd has times. Raises UserError for what it can't say."""
    assert schedule.cron is not None
    *_, days, _, weekdays = schedule.cron.split()
    of = check_plain(schedule.cron)
    if not days.startswith("*") and not weekdays.startswith("*"):  # to cron, one of the two is enough
        raise UserError(
            f"schedule.cron = {schedule.cron!r}: systemd has no word for a day of the month or of the week; "
            "--by cron has"
        )
    _check_shifted(schedule, of)
    week = sorted({day % 7 for day in of.weekdays if isinstance(day, int)})
    names = "" if len(week) == 7 else ",".join(DAYS[day] for day in week) + " "
    day = f"*-{_listed(of.months, 12)}-{_listed(of.days, 31)}"
    return f"{names}{day} {_listed(of.hours, 24)}:{_listed(of.minutes, 60)}:00 {schedule.time_zone}"


def _check_shifted(schedule: Schedule, of: CronSim) -> None:
    """Raises UserError where the hour that a change to summer time leaves out has a tick: cron runs it right after,
    systemd (252) not at all."""
    assert schedule.cron is not None
    minute, hour, *_ = schedule.cron.split()
    if minute.startswith("*") or hour.startswith("*"):
        return  # by the hours that pass
    now = datetime.now(UTC)
    days = [(now + timedelta(days=day)).astimezone(schedule.zone) for day in range(DAYS_AHEAD)]
    for day, (start, end) in enumerate(pairwise(days)):
        if (end.utcoffset() or NO_OFFSET) <= (start.utcoffset() or NO_OFFSET):
            continue
        until = now + timedelta(days=day + 1)
        for tick in CronSim(schedule.cron, start):
            if tick.astimezone(UTC) > until:
                break
            if tick.hour in of.hours and tick.minute in of.minutes:
                continue
            raise UserError(
                f"schedule.cron = {schedule.cron!r}, schedule.time_zone = {schedule.time_zone!r}: summer time leaves "
                f"this time out on {tick:%Y-%m-%d}, and systemd would not run it then; give another hour, the zone "
                "UTC, or --by cron"
            )


def check_plain(cron: str) -> CronSim:
    """Raises UserError for what cronsim alone understands."""
    of = CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC))
    if min(of.days) < 1 or not all(isinstance(day, int) for day in of.weekdays):
        raise UserError(
            f"schedule.cron = {cron!r}: neither systemd nor a crontab has a word for a month's last day, or the n-th "
            "or last of its weekdays; give days by their numbers"
        )
    return of


def _listed(values: Iterable[int], count: int) -> str:
    """Of one field: all, or each by its number."""
    numbers = sorted(values)
    return "*" if len(numbers) == count else ",".join(f"{number:02d}" for number in numbers)
