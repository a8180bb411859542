"""What is due: by hand around daylight saving and jumps of the clock, and that no tick is ever given twice."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2m.errors import UserError
from r2m.pipelines.cron import check_cron, ticks_between
from r2m.pipelines.schema import Schedule
from r2m.pipelines.ticks import clocked, due

ZURICH, NEW_YORK, UTC_ZONE = (ZoneInfo(name) for name in ("Europe/Zurich", "America/New_York", "UTC"))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def ticks(cron: str, zone: ZoneInfo, after: str, until: str) -> list[str]:
    return [f"{tick:%m-%d %H:%M}" for tick in ticks_between(cron, zone, at(after), at(until))]


def nightly(**settings: Any) -> Schedule:
    return Schedule(cron="0 3 * * *", **settings)


def test_a_time_that_a_night_leaves_out_is_at_the_end_of_the_gap() -> None:
    # Zurich, 2026-03-29: from 02:00 (+1) to 03:00 (+2). New York, 2026-03-08: from 02:00 (-5) to 03:00 (-4).
    assert ticks("30 2 * * *", ZURICH, "2026-03-28", "2026-03-31") == ["03-28 01:30", "03-29 01:00", "03-30 00:30"]
    assert ticks("30 2 * * *", NEW_YORK, "2026-03-07", "2026-03-10") == ["03-07 07:30", "03-08 07:00", "03-09 06:30"]
    # two of them, and one that is at the gap's end anyway: once
    assert ticks("0,30 2,3 * * *", ZURICH, "2026-03-29", "2026-03-29T12") == ["03-29 01:00", "03-29 01:30"]


def test_a_time_that_a_night_has_twice_is_the_first() -> None:
    # Zurich, 2026-10-25: from 03:00 (+2) to 02:00 (+1). New York, 2026-11-01: 01:30 twice.
    assert ticks("30 2 * * *", ZURICH, "2026-10-24", "2026-10-27") == ["10-24 00:30", "10-25 00:30", "10-26 01:30"]
    assert ticks("30 1 * * *", NEW_YORK, "2026-10-31", "2026-11-03") == ["10-31 05:30", "11-01 05:30", "11-02 06:30"]
    # asked between the two
    assert ticks("30 2 * * *", ZURICH, "2026-10-25T01:10", "2026-10-25T23") == []


def test_what_is_due_every_hour_goes_by_the_hours_that_pass() -> None:
    autumn = ["10-24 23:30", "10-25 00:30", "10-25 01:30", "10-25 02:30"]
    assert ticks("30 * * * *", ZURICH, "2026-10-24T23", "2026-10-25T03") == autumn
    assert ticks("30 * * * *", ZURICH, "2026-03-29T00", "2026-03-29T03") == ["03-29 00:30", "03-29 01:30", "03-29 02:30"]


def test_a_day_of_the_month_or_of_the_week() -> None:
    # Debian's rule: either of the two where both are given. 2026-12-01 is a Tuesday.
    assert ticks("0 3 13 * MON", UTC_ZONE, "2026-12-01", "2026-12-15") == ["12-07 03:00", "12-13 03:00", "12-14 03:00"]
    assert ticks("0 3 */10 * TUE", UTC_ZONE, "2026-12-01", "2026-12-31") == ["12-01 03:00"]  # both: */ is a star


@pytest.mark.parametrize("cron", ["", "0 3 * *", "0 3 * * * *", "61 3 * * *", "0 3 30 2 *", "@daily", "0 3 L * *",
                                  "0 3 LW * *", "0 3 * * 5L", "0 3 * * MON#1", "nightly"])  # fmt: skip
def test_no_cron_expression(cron: str) -> None:
    with pytest.raises(ValueError, match="five fields are allowed") as caught:
        check_cron(cron)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="schedule.cron"):
        clocked(Schedule(), cron, None)


def test_a_clock_of_the_command_line() -> None:
    schedule = clocked(nightly(overlap="queue"), "30 2 * * *", "Europe/Zurich")
    assert (schedule.cron, schedule.zone, schedule.overlap) == ("30 2 * * *", ZURICH, "queue")
    assert clocked(nightly(), None, None) == nightly()
    with pytest.raises(UserError, match="schedule.time_zone"):
        clocked(nightly(), None, "Mars/Olympus")
    with pytest.raises(UserError, match="schedule.cron = None"):
        due(Schedule(), [], at("2026-12-01"))


def test_the_first_time() -> None:
    for missed in ("skip", "latest", "all"):
        assert due(nightly(missed=missed), [], at("2026-12-01T03:00:02")).ticks == [at("2026-12-01T03:00")]
        nothing = due(nightly(missed=missed), [], at("2026-12-01T04:00:02"))  # late by more than an hour
        assert (nothing.ticks, nothing.missed) == ([], {})
    often = due(Schedule(cron="*/20 * * * *", missed="all"), [], at("2026-12-01T03:05"))
    assert often.ticks == [at("2026-12-01T03:00")]


def test_what_was_missed() -> None:
    """Off for three nights: the 2nd, the 3rd and the 4th. Looked at on the 4th, before and after 04:00."""
    executed, nights = [at("2026-12-01T03")], [at(f"2026-12-0{day}T03") for day in (2, 3, 4)]
    on_time, late = at("2026-12-04T03:30"), at("2026-12-04T09")
    assert due(nightly(missed="latest"), executed, late).ticks == nights[2:]
    assert list(due(nightly(missed="latest"), executed, late).missed) == nights[:2]
    assert due(nightly(missed="skip"), executed, on_time).ticks == nights[2:]
    skipped = due(nightly(missed="skip"), executed, late)
    assert (skipped.ticks, list(skipped.missed)) == ([], nights)
    assert skipped.missed[nights[2]] == "late by more than 1 h (missed: skip)"
    assert due(nightly(missed="all"), executed, late).ticks == nights
    limited = due(nightly(missed="all", most=2), executed, late)
    assert (limited.ticks, limited.missed) == (nights[1:], {nights[0]: "more than the last 2 (most)"})
    assert due(nightly(missed="skip", late_hours=7), executed, late).ticks == nights[2:]


def test_a_clock_that_jumps() -> None:
    executed = [at("2026-11-30T03"), at("2026-12-01T03")]
    for now in ("2026-12-01T02:10", "2026-12-01T03:00", "2026-12-01T03:30", "2026-11-30T12"):  # set back; once more
        assert due(nightly(missed="all"), executed, at(now)) == due(nightly(), executed, at(now))
        assert due(nightly(missed="all"), executed, at(now)).ticks == []
    # ahead by years, and what was run then: no more than most; set right, the next night is as any
    ahead = due(nightly(missed="all", most=3), executed, at("2031-01-01"))
    assert ahead.ticks == [at("2030-12-29T03"), at("2030-12-30T03"), at("2030-12-31T03")]
    assert due(nightly(), [*executed, *ahead.ticks], at("2026-12-02T03:00:01")).ticks == [at("2026-12-02T03")]
    # and when that time comes: not again
    assert due(nightly(), [*executed, *ahead.ticks], at("2030-12-31T03:00:01")).ticks == []


def test_a_tick_during_a_run() -> None:
    """The run of the 1st took until 10:00 on the 2nd."""
    executed, tick = [at("2026-12-01T03")], at("2026-12-02T03")
    ran = [(at("2026-12-01T03:00:05"), at("2026-12-02T10"))]
    now = at("2026-12-02T10:00:01")
    for missed in ("skip", "latest", "all"):
        skipped = due(nightly(overlap="skip", missed=missed), executed, now, ran)
        assert (skipped.ticks, skipped.missed) == ([], {tick: "an execution ran (overlap: skip)"})
        assert due(nightly(overlap="queue", missed=missed), executed, now, ran).ticks == [tick]
    too_late = at("2026-12-02T11:00:01")  # an hour after the run's end
    assert due(nightly(overlap="queue", missed="skip"), executed, too_late, ran).ticks == []


CRONS = st.sampled_from(["0 3 * * *", "30 2 * * *", "*/20 * * * *", "30 * * * *", "15,45 1-3 * * *", "0 2 * * SUN",
                         "30 1 8 3 *", "*/7 2 * * *", "0 0,12 1,25 * MON"])  # fmt: skip
ZONES = st.sampled_from([ZURICH, NEW_YORK, UTC_ZONE])
NIGHTS = st.sampled_from([at("2026-03-28T20"), at("2026-10-24T20"), at("2026-03-08"), at("2026-11-01"), at("2026-06-07")])


@given(CRONS, ZONES, NIGHTS, st.integers(0, 60 * 20), st.integers(0, 60 * 40))
@settings(max_examples=200, deadline=None)
def test_ticks_are_the_same_whenever_one_looks(cron: str, zone: ZoneInfo, start: datetime, a: int, b: int) -> None:
    middle, end = start + timedelta(minutes=a), start + timedelta(minutes=a + b)
    whole = list(ticks_between(cron, zone, start, end))
    assert whole == [*ticks_between(cron, zone, start, middle), *ticks_between(cron, zone, middle, end)]
    assert all(first < second for first, second in zip(whole, whole[1:], strict=False))


@given(
    CRONS, ZONES, NIGHTS, st.sampled_from(["skip", "latest", "all"]), st.sampled_from(["skip", "queue"]),
    st.integers(1, 4), st.lists(st.tuples(st.integers(-300, 600), st.integers(0, 120)), min_size=1, max_size=12),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_no_tick_is_given_twice(
    cron: str, zone: ZoneInfo, now: datetime, missed: Any, overlap: Any, most: int, calls: list[tuple[int, int]]
) -> None:
    """Whatever the clock does between calls (minutes, backwards too), and however long the runs are."""
    schedule = Schedule(cron=cron, time_zone=zone.key, missed=missed, overlap=overlap, most=most)
    executed: list[datetime] = []
    ran: list[tuple[datetime, datetime]] = []
    for jump, length in calls:
        now += timedelta(minutes=jump)
        found = due(schedule, executed, now, ran)
        assert found.ticks == sorted(found.ticks)
        assert not set(found.ticks) & {*executed, *found.missed}
        assert len(found.ticks) <= (most if missed == "all" else 1)
        assert all(tick <= now for tick in found.ticks)
        for tick in found.ticks:
            executed.append(tick)
            ran.append((now, now + timedelta(minutes=length)))
            now += timedelta(minutes=length)
    assert len(executed) == len(set(executed))
