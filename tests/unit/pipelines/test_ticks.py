"""When a pipeline is due."""

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from r2m.pipelines.cron import check_cron
from r2m.pipelines.schema import Schedule
from r2m.pipelines.ticks import MOST_LISTED, due, ticks_back

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def nightly(**settings) -> Schedule:
    return Schedule(**{"cron": "0 3 * * *"} | settings)


def back(schedule: Schedule, until: str, after: str) -> list[str]:
    assert schedule.cron is not None
    return [f"{t:%d %H:%M}" for t in ticks_back(schedule.cron, schedule.zone, at(until), at(after))]


@pytest.mark.parametrize(("zone", "before", "gap", "after"), [
    # At 02:00 the clocks go to 03:00, on 29 March 2026 in Zurich and on 8 March in New York.
    ("Europe/Zurich", "2026-03-28 00:00", ["30 00:30", "29 01:00", "28 01:30"], "2026-03-30 12:00"),
    ("America/New_York", "2026-03-07 00:00", ["09 06:30", "08 07:00", "07 07:30"], "2026-03-09 12:00"),
])  # fmt: skip
def test_a_time_that_does_not_exist_comes_right_after_the_gap(zone, before, gap, after):
    assert back(nightly(cron="30 2 * * *", time_zone=zone), after, before) == gap


@pytest.mark.parametrize(("zone", "before", "ticks", "after"), [
    # On 25 October 2026 in Zurich, and on 1 November in New York, 02:30 or 01:30 comes twice.
    ("Europe/Zurich", "2026-10-24 12:00", ["26 01:30", "25 00:30"], "2026-10-26 12:00"),
    ("America/New_York", "2026-10-31 12:00", ["02 07:30", "01 07:30"], "2026-11-02 12:00"),
])  # fmt: skip
def test_a_time_that_comes_twice_comes_once(zone, before, ticks, after):
    assert back(nightly(cron="30 2 * * *", time_zone=zone), after, before) == ticks


def test_between_the_two_passes_of_an_hour_the_first_has_been():
    """02:10 for the second time: 02:30 was twenty minutes before, at its first."""
    twice = nightly(cron="30 2 * * *", time_zone="Europe/Zurich")
    assert back(twice, "2026-10-25 01:10", "2026-10-24 12:00") == ["25 00:30"]


CRONS = st.sampled_from(["0 3 * * *", "30 2 * * *", "*/20 * * * *", "30 * * * *", "15,45 1-3 * * *", "0 2 * * SUN",
                         "30 1 8 3 *", "*/7 2 * * *", "0 0,12 1,25 * MON"])  # fmt: skip
ZONES = st.sampled_from(["Europe/Zurich", "America/New_York", "UTC"])
NIGHTS = st.sampled_from(["2026-03-28 20:00", "2026-10-24 20:00", "2026-03-08", "2026-11-01", "2026-06-07"])


@given(CRONS, ZONES, NIGHTS, st.integers(0, 20 * 60), st.integers(0, 40 * 60))
@settings(max_examples=200, deadline=None)
def test_ticks_are_the_same_whenever_one_looks_and_as_cronsim_has_them_forwards(cron, zone, night, a, b):
    start = at(night)
    middle, end = start + timedelta(minutes=a), start + timedelta(minutes=a + b)
    zone = ZoneInfo(zone)
    whole = ticks_back(cron, zone, end, start)
    assert whole == [*ticks_back(cron, zone, end, middle), *ticks_back(cron, zone, middle, start)]
    forwards = takewhile(lambda tick: tick <= end, (t.astimezone(UTC) for t in CronSim(cron, start.astimezone(zone))))
    assert whole == sorted({tick for tick in forwards if tick > start}, reverse=True)


def test_every_hour_is_every_hour_whatever_the_clocks_do():
    hourly = nightly(cron="0 * * * *", time_zone="Europe/Zurich")
    for day in ("2026-03-29", "2026-10-25"):
        assert len(back(hourly, f"{day} 12:00", f"{day} 00:00")) == 12


def test_a_first_time_runs_the_newest_tick_and_none_of_long_ago():
    for missed in ("latest", "all"):
        found = due(nightly(missed=missed), [], at("2026-12-01 09:00"))
        assert (found.ticks, found.missed) == ((at("2026-12-01 03:00"),), ())
    assert due(nightly(missed="skip"), [], at("2026-12-01 03:59")).ticks == (at("2026-12-01 03:00"),)
    late = due(nightly(missed="skip"), [], at("2026-12-01 04:01"))
    assert (late.ticks, late.missed) == ((), (at("2026-12-01 03:00"),))
    assert "1 h" in late.why


def test_what_becomes_of_missed_ticks():
    executed, now = [at("2026-12-01 03:00")], at("2026-12-05 03:10")
    nights = tuple(at(f"2026-12-0{day} 03:00") for day in (2, 3, 4, 5))
    assert due(nightly(missed="latest"), executed, now).ticks == nights[-1:]
    assert due(nightly(missed="latest"), executed, now).missed == nights[:-1]
    assert due(nightly(missed="all"), executed, now).ticks == nights
    few = due(nightly(missed="all", most=3), executed, now)
    assert (few.ticks, few.missed) == (nights[1:], nights[:1])
    assert due(nightly(missed="skip"), executed, now).ticks == nights[-1:]
    assert due(nightly(missed="skip"), executed, now + timedelta(hours=2)).ticks == ()


def test_a_clock_that_goes_back_runs_nothing_twice_and_one_that_was_ahead_stops_nothing():
    executed = [at("2026-12-01 03:00"), at("2026-12-02 03:00")]
    assert due(nightly(), executed, at("2026-12-02 02:00")).ticks == ()
    ahead = [*executed, at("2031-01-01 03:00")]
    assert due(nightly(), ahead, at("2026-12-03 03:00")).ticks == (at("2026-12-03 03:00"),)


def test_a_tick_counts_in_the_minute_in_which_it_comes():
    executed = [at("2026-12-01 03:00")]
    assert due(nightly(), executed, at("2026-12-02 02:59")).ticks == ()
    assert due(nightly(), executed, at("2026-12-02 03:00")).ticks == (at("2026-12-02 03:00"),)


def test_years_without_a_run_are_not_listed_without_end():
    found = due(nightly(cron="* * * * *"), [at("2016-01-01 00:00")], at("2026-01-01 00:00"))
    assert len(found.ticks) + len(found.missed) == MOST_LISTED


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["skip", "latest", "all"]), st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 */6 1,15 * *"]),
    st.sampled_from(["UTC", "Europe/Zurich", "America/New_York"]),
    st.lists(st.integers(-200, 3000), min_size=1, max_size=12),
)  # fmt: skip
def test_no_tick_is_given_twice_and_all_are_in_order(missed, cron, zone, minutes):
    """Whatever the clock does, also going back."""
    schedule = nightly(cron=cron, time_zone=zone, missed=missed, most=5)
    now, executed = at("2026-10-24 12:00"), set()
    for step in minutes:
        now += timedelta(minutes=step)
        found = due(schedule, executed, now)
        given_ = [*found.missed, *found.ticks]
        assert given_ == sorted(given_)
        assert not executed & set(given_)
        assert all(tick <= now for tick in given_)
        executed |= set(given_)


@pytest.mark.parametrize(
    "cron", ["", "a", "0 3 * *", "0 3 * * * *", "61 * * * *", "0 0 31 2 *", "@daily", "0 3 * * mon-xyz"]
)
def test_what_is_no_cron_expression_is_refused_in_one_line(cron):
    with pytest.raises(ValueError, match="minute hour day month weekday"):
        check_cron(cron)


def test_cron_expressions_have_names_lists_and_steps():
    for cron in ("0 3 * * mon-fri", "*/15 8-17 * jan,jul *", "0 0 L * *"):
        assert check_cron(cron) == cron
