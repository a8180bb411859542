"""What the alarm is worth: the judgement when it was raised against the judgement at the end, by hand."""

import json
import math

import pytest

from r2m.results.alarms import alarms, raised
from r2m.results.comparison import compare_runs
from r2m.results.comparison_text import numbers, sentences
from r2m.runs.journal import Journal, read


def test_gold_at_the_alarm_and_at_the_end_are_means_over_the_runs_that_raised_it(runs):
    runs.run("a", (0.5,), (0.75,), (0.25,), seed=0, alarm=2)
    runs.run("b", (0.5,), (0.25,), (0.0,), seed=1, alarm=3)
    quiet = runs.run("looked", (0.9, 0.0), seed=2, fields=("eval/gold", "alarm/on"))
    runs.run("older", (0.1,), seed=3)  # did not look
    found = alarms(runs.views)
    assert (found.rounds, found.watched, found.judgement) == ((2, 3), 3, "eval/gold")
    assert found.at == (0.75 + 0.0) / 2
    assert found.end == (0.25 + 0.0) / 2
    assert (found.count, found.when, found.fall()) == ("2 of 3", "rounds 2 to 3", "0.375→0.125")
    assert alarms([quiet]).rounds == ()
    assert (alarms([quiet]).when, alarms([quiet]).fall()) == ("", "–")
    assert alarms(runs.views[3:]) is None


def test_an_alarm_between_two_evaluations_is_held_against_the_one_before(runs):
    view = runs.run("a", (0.5, 1.0), (0.4, 2.0), (0.1, 3.0), alarm=2)
    assert alarms([view]).at == 0.4
    del view.rounds[2]["eval/gold"]
    assert alarms([view]).at == 0.5
    del view.rounds[1]["eval/gold"]
    assert math.isnan(alarms([view]).at)  # nothing was known yet


def test_where_there_is_no_gold_the_judge_s_win_rate_is_told(runs):
    view = runs.run("a", (0.75, 1.0), (0.25, 2.0), fields=("eval/win_rate", "eval/kl_sequence"), alarm=1)
    found = alarms([view])
    assert (found.judgement, found.at, found.end) == ("eval/win_rate", 0.75, 0.25)
    assert raised([("RLOO", found)]) == [
        "The alarm was raised in 1 of 1 runs, of RLOO: their win rate was 0.75 then, and 0.25 at the end."
    ]


def test_the_first_of_two_alarms_counts_and_a_run_that_was_stopped_by_it_too(runs):
    runs.run("a", (0.5,), (0.25,), status="pruned", alarm=1)
    path = runs.storage / "runs" / "a" / "journal.jsonl"
    with Journal(path) as journal:  # a resumed run replays a few rounds
        journal.event("alarm", step=2, began=1, checkpoint=None, reason="gold fell", signals={})
    assert read(path).alarm["step"] == 1
    (comparison,), _ = compare_runs(runs.results())
    (row,) = comparison.rows
    assert row.so_far
    assert row.alarm.rounds == (1,)


def test_a_comparison_says_it_once_and_its_numbers_have_it(runs):
    for seed in range(2):
        runs.run(f"a{seed}", (0.5, 1.0), (0.25, 2.0), seed=seed, alarm=1)
    runs.run("b", (0.5, 0.0), settings=["reward.feedback=on"], fields=("eval/gold", "alarm/on"))
    comparisons, notes = compare_runs(runs.results())
    assert sentences(comparisons[0])[-1] == (
        "The alarm was raised in 2 of 3 runs, of RLOO: their gold was 0.5 then, and 0.25 at the end."
    )
    tree = json.loads(json.dumps(numbers(comparisons, notes), allow_nan=False))
    rloo, r2m = tree["setups"][0]["arms"]
    assert rloo["alarm"] == {"watched": 2, "rounds": [1, 1], "judgement": "eval/gold", "at": 0.5, "end": 0.25}
    assert (r2m["alarm"]["rounds"], r2m["alarm"]["at"]) == ([], None)


@pytest.mark.parametrize(("watched", "said"), [(True, ["None of 1 runs raised the alarm."]), (False, [])])
def test_no_alarm_is_said_where_one_was_looked_for(runs, watched, said):
    runs.run("a", (0.5, 0.0), fields=("eval/gold", "alarm/on" if watched else "eval/vanilla"))
    assert raised([("RLOO", alarms(runs.views))]) == said
