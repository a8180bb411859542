"""Rankings, comparisons and verdicts worked by hand, on real studies and journals."""

import json
import math
import re
import shlex

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from r2m.config import load
from r2m.results.importance import importance
from r2m.sweeps.answer import answer
from r2m.sweeps.ranking import winner
from r2m.sweeps.spec import config_of, load_sweep

RLOO = {"reward.feedback": False}
KL_AT_MOST_20 = {"constraints": [{"metric": "eval/kl_sequence", "max": 20}]}
GOLD_UP_KL_DOWN = {"objectives": [{"metric": "eval/gold"}, {"metric": "eval/kl_sequence", "direction": "minimize"}]}


def names(answer):
    return [arm.name for arm in answer.ranking]


def test_complete_arms_are_ranked_by_their_value_and_then_come_pruned_failed_and_running_ones(made):
    m = made()
    m.trial(0.1, 0.1, 0.2)
    m.trial(0.2, 0.9, state="pruned")
    m.trial(0.3, 0.1, 0.5)
    m.trial(0.4, 0.1, 0.1, state="pruned")  # it came further
    m.trial(0.5, 0.3, state="running")
    m.trial(0.6, 0.8, state="failed")
    m.trial(0.7, 0.9, 0.5)  # a tie: the earlier one first
    m.run("rloo", RLOO, 0, 0.1, 0.3)
    a = m.answer()
    assert names(a) == ["t002", "t006", "rloo", "t000", "t003", "t001", "t005", "t004", "r2m-default"]
    assert [arm.state for arm in a.ranking] == [
        *["complete"] * 4, "pruned", "pruned", "failed", "running", "waiting",
    ]  # fmt: skip
    assert a.winner == "t002"
    assert a.front == ()
    assert [arm.values[0] for arm in a.ranking[:6]] == [0.5, 0.5, 0.3, 0.2, 0.1, 0.9]


def test_what_is_minimised_is_ranked_from_below(made):
    m = made(objectives=[{"metric": "eval/response_tokens", "direction": "minimize"}])
    for value in (9.0, 4.0, 7.0):
        m.trial(0.5, 0.0, values=(value,))
    a = m.answer()
    assert names(a)[:3] == ["t001", "t002", "t000"]
    assert a.winner == "t001"


def test_an_arm_that_breaks_a_constraint_comes_after_all_that_keep_it_nearest_first(made):
    m = made(**KL_AT_MOST_20)
    m.trial(0.1, (0.9, 25.0), violation=5.0)
    m.trial(0.2, (0.2, 20.0), violation=0.0)
    m.trial(0.3, (0.8, 22.0), violation=2.0)
    m.trial(0.4, (0.95, 10.0))  # the study was not told that it keeps them
    m.run("rloo", RLOO, 0, (0.7, 19.0))
    m.run("r2m-default", {}, 0, (0.99, 20.5))
    a = m.answer()
    assert names(a) == ["rloo", "t001", "r2m-default", "t002", "t000", "t003"]
    assert [arm.feasible for arm in a.ranking] == [True, True, False, False, False, False]
    assert [arm.violation for arm in a.ranking] == [-1.0, 0.0, 0.5, 2.0, 5.0, math.inf]
    assert a.winner == "t001"


def test_of_several_objectives_the_front_comes_first(made):
    m = made(**GOLD_UP_KL_DOWN)
    m.trial(0.1, (0.5, 10.0))  # front
    m.trial(0.2, (0.5, 12.0))  # as much gold, more KL
    m.trial(0.3, (0.9, 30.0))  # front, best gold
    m.trial(0.4, (0.4, 11.0))  # worse than t000 in both
    m.trial(0.5, (0.1, 2.0))  # front
    m.trial(0.6, (0.1, 2.0))  # its equal: neither dominates
    a = m.answer()
    assert list(a.front) == ["t002", "t000", "t004", "t005"]
    assert names(a)[:6] == ["t002", "t000", "t004", "t005", "t001", "t003"]
    assert a.winner == "t002"


def test_the_winner_of_equals_in_the_first_objective_is_the_one_on_the_front(made):
    m = made(**GOLD_UP_KL_DOWN)
    m.trial(0.1, (0.9, 30.0))
    m.trial(0.2, (0.9, 12.0))
    assert winner(m.sweep, m.study.get_trials()) == 1


def test_an_infeasible_arm_is_not_on_the_front_and_dominates_nothing(made):
    m = made(**GOLD_UP_KL_DOWN, **KL_AT_MOST_20)
    m.trial(0.1, (0.9, 21.0), violation=1.0)
    m.trial(0.2, (0.5, 20.0), violation=0.0)
    a = m.answer()
    assert a.front == ("t001",)
    assert a.winner == "t001"


def test_a_row_has_the_means_over_the_seeds_the_cost_and_the_command_that_repeats_it(made):
    m = made(seeds=[0, 1])
    m.trial(0.25, (0.2, 8.0, 1.5), (0.4, 12.0, 2.5), values=(0.5,))
    m.run("t000", {"reward.alpha": 0.25, "reward.omega_min": 0.5}, 1, (0.6, 20.0, 3.5))
    arm = m.answer().arm("t000")
    assert (arm.kl, arm.gold, arm.vanilla) == (16.0, 0.5, 3.0)  # last evaluations
    assert arm.params == {"reward.alpha": 0.25, "reward.omega_min": 0.5}
    assert arm.trajectories == (2 + 1) * 2 * 4
    assert arm.worker_s == 3 * (2.0 + 1.0)
    assert arm.runs == ("made-t000-s0", "made-t000-s1")
    program, verb, recipe, *sets = shlex.split(arm.command)
    assert (program, verb, set(sets[::2])) == ("r2m", "train", {"--set"})
    assert load(recipe, sets[1::2]) == config_of(m.sweep, arm.params, 0)


def test_worker_seconds_count_every_worker(made):
    m = made(set={"algorithm.queries": 2, "algorithm.responses": 4, "run.workers": 2})
    m.trial(0.5, 0.1, 0.2)
    assert m.answer().arm("t000").worker_s == 2 * 2 * 3.0


def test_a_baseline_inside_the_space_is_its_trial(made):
    m = made()
    m.trial(0.5, 0.4, baseline="R2M default")
    m.trial(0.1, 0.6)
    a = m.answer()
    assert names(a) == ["t001", "t000", "rloo"]
    assert (a.arm("t000").label, a.arm("t000").baseline) == ("R2M default", True)
    assert [c.arm for c in a.confirmation] == ["t001", "t000", "rloo"]


def test_a_baseline_of_several_seeds_is_complete_when_all_have_finished(made):
    m = made(seeds=[0, 1])
    m.run("rloo", RLOO, 0, 0.2)
    assert m.answer().arm("rloo").state == "running"
    m.run("rloo", RLOO, 1, 0.4)
    row = m.answer().arm("rloo")
    assert (row.state, row.values) == ("complete", (pytest.approx(0.3),))


def test_a_baseline_that_its_alarm_has_stopped_says_why(made):
    m = made()
    m.run("rloo", RLOO, 0, 0.1, 0.2, status="pruned")
    row = m.answer().arm("rloo")
    assert (row.state, row.reason) == ("pruned", "alarm in round 2: judged lower")


def test_a_failed_arm_says_why(made):
    m = made()
    m.run("rloo", RLOO, 0, 0.1, status="failed")
    row = m.answer().arm("rloo")
    assert (row.state, row.reason) == ("failed", "NaN loss")


def test_a_trial_without_a_run_has_no_values_and_no_trial_no_rows(made):
    m = made()
    assert names(m.answer()) == ["rloo", "r2m-default"]
    m.study.tell(m.study.ask(), state=TrialState.FAIL)
    row = m.answer().arm("t000")
    assert (row.state, row.params, row.runs, row.trajectories) == ("failed", {}, (), 0)
    assert math.isnan(row.values[0])
    assert math.isnan(row.kl)


def confirmed(made, values, rloo, direction="maximize", **tree):
    """A sweep whose winner is t000, with these values of fresh seeds."""
    seeds = list(range(100, 100 + max(len(values), len(rloo), 1)))
    m = made(
        confirm=seeds, baselines={"RLOO": RLOO}, objectives=[{"metric": "eval/gold", "direction": direction}], **tree
    )
    m.trial(0.25, 0.9)
    m.run("rloo", RLOO, 0, 0.1)
    m.confirm("t000", {"reward.alpha": 0.25, "reward.omega_min": 0.5}, *values)
    m.confirm("rloo", RLOO, *rloo)
    return m


def test_winner_and_baseline_are_compared_on_the_seeds_that_both_have(made):
    m = confirmed(made, [(0.5, 10.0), (0.7, 12.0), (0.9, 99.0)], [(0.4, 20.0), (0.4, 30.0)])
    a = m.answer()
    assert a.confirmation[0].values == {100: 0.5, 101: 0.7, 102: 0.9}
    assert a.confirmation[1].values == {100: 0.4, 101: 0.4}
    (c,) = a.comparisons
    assert (c.arm, c.label, c.difference.n, c.difference.p) == ("rloo", "RLOO", 2, 0.5)
    assert c.difference.mean == pytest.approx((0.1 + 0.3) / 2)
    assert c.difference.interval == (pytest.approx(0.1), pytest.approx(0.3))
    assert c.kl == (11.0, 25.0)
    assert "RLOO 2 of 3" in a.verdict[-1]
    assert "t000" not in a.verdict[-1]


def test_a_gain_is_positive_where_less_is_better_and_the_winner_has_less(made):
    a = confirmed(made, [0.1] * 3, [0.4] * 3, direction="minimize").answer()
    assert a.comparisons[0].difference.mean == pytest.approx(0.3)
    assert "0.3" in a.verdict[0]
    assert "lower is better" in a.verdict[0]


def test_only_finished_runs_count_and_what_will_have_no_value_is_said(made):
    m = confirmed(made, [0.5, math.nan], [0.4, 0.4, 0.4, 0.4])
    params = {"reward.alpha": 0.25, "reward.omega_min": 0.5}
    m.run("t000", params, 102, 0.99, status="running")
    m.run("t000", params, 103, 0.99, status="failed")
    a = m.answer()
    assert a.confirmation[0].values == {100: 0.5}
    assert a.confirmation[0].failed == (101, 103)
    assert a.comparisons[0].difference.n == 1
    assert [s for s in a.verdict if "ailed" in s and "t000" in s and "101, 103" in s]
    assert "t000 1 of 4" in a.verdict[-1]
    assert "RLOO" not in a.verdict[-1]  # it has all of its own


def test_no_comparison_without_a_common_seed(made):
    m = confirmed(made, [0.5], [])
    assert m.answer().comparisons == ()
    headline = m.answer().verdict[0]
    assert headline.startswith("t000")
    assert "no baseline" in headline


@pytest.mark.parametrize(
    ("values", "rloo", "words", "numbers"),
    [
        ([0.5] * 5, [0.25] * 5, ["t000 is better than RLOO"], ["0.25", "0.25 to 0.25", "p = 0.0625", "5"]),
        ([0.25] * 6, [0.5] * 6, ["t000 is worse than RLOO"], ["−0.25", "−0.25 to −0.25", "p = 0.0312", "6"]),
        # five draws of ±1/8 (0.4 each) or 0: the sum is at least 4/8 in 0.4^5 + 5 * 0.4^4 * 0.2 = 0.036 of cases
        (
            [0.5, 0.25, 0.5, 0.25, 0.375], [0.375] * 5,
            ["not distinguishable"], ["0", "−0.1 to 0.1", "p = 1", "5"],
        ),
        ([0.5, 0.625, 0.75], [0.375] * 3, ["better", "each", "nothing", "chance"], ["0.25", "3", "1 in 4|1 of 4"]),
        ([0.25, 0.625, 1.0], [0.375] * 3, ["not told apart", "chance"], ["0.25", "3", "1 in 4|1 of 4"]),
        ([0.625], [0.375], ["cannot", "chance"], ["0.25", "one"]),
    ],
)  # fmt: skip
def test_the_verdict_claims_what_the_numbers_bear(made, values, rloo, words, numbers):
    a = confirmed(made, values, rloo).answer()
    headline, search = a.verdict
    for word in (*words, "t000", "RLOO", "eval/gold"):
        assert word in headline
    for number in numbers:
        assert re.search(rf"(?<![\d.−])({number})(?![\d.]\d|\d)", headline, re.I), number
    if len(values) < 5:
        assert "p =" not in headline
        assert "interval" not in headline
    for number in ("0.9", f"{sum(values) / len(values):.3g}", str(len(values)) if len(values) > 1 else "1"):
        assert number in search  # what the search had, and what fresh seeds say


def test_a_winner_that_breaks_a_constraint_on_fresh_seeds_is_told_of(made):
    m = made(**KL_AT_MOST_20)
    m.trial(0.25, (0.9, 19.0), violation=-1.0)
    params = {"reward.alpha": 0.25, "reward.omega_min": 0.5}
    m.confirm("t000", params, (0.9, 18.0), (0.9, 22.0))
    assert m.answer().confirmation[0].violation == 0.0  # their mean is 20
    m.run("t000", params, 102, (0.9, 29.0))
    a = m.answer()
    assert a.confirmation[0].violation == 3.0
    (told,) = [s for s in a.verdict if "eval/kl_sequence ≤ 20" in s]
    assert "t000" in told
    assert re.search(r"\bby 3\b", told)


def test_a_winner_that_is_a_baseline_is_said_first(made):
    m = made(baselines={"RLOO": RLOO, "R2M default": {"reward.feedback": True}})
    m.trial(0.5, 0.9, baseline="R2M default")
    m.trial(0.1, 0.6)
    a = m.answer()
    assert "R2M default" in a.verdict[0]
    assert "t000" in a.verdict[0]
    assert "nothing better" in a.verdict[0]
    assert [c.label for c in a.confirmation] == ["R2M default", "RLOO"]


def test_without_a_feasible_trial_the_nearest_is_named(made):
    m = made(**KL_AT_MOST_20)
    m.trial(0.1, (0.9, 25.5), violation=5.5)
    m.trial(0.2, (0.4, 23.0), violation=3.0)
    a = m.answer()
    assert a.winner is None
    (told,) = a.verdict
    for fact in ("No trial", "eval/kl_sequence ≤ 20", "t001", "by 3", "0.4"):
        assert fact in told


def test_without_a_complete_trial_there_is_nothing_to_choose(made):
    m = made()
    (waiting,) = m.answer().verdict
    assert "No trial" in waiting
    m.trial(0.1, 0.9, state="pruned")
    m.trial(0.2, 0.9, state="failed")
    a = m.answer()
    (told,) = a.verdict
    assert told != waiting
    assert "1 pruned, 1 failed" in told
    assert (a.winner, a.comparisons) == (None, ())


def test_a_search_that_goes_on_says_so(made):
    m = made()
    m.trial(0.1, 0.9)
    m.trial(0.2, 0.1, state="running")
    assert "1 arm still running" in m.answer().verdict[-1]


def test_importance_names_the_parameter_that_decides(made):
    m = made()
    for i in range(20):
        m.trial(i / 20, float(i), omega=0.9 * (i * 7 % 20) / 20)
    a = m.answer()
    assert next(iter(a.importance)) == "reward.alpha"
    assert sum(a.importance.values()) == pytest.approx(1)
    assert a.importance["reward.alpha"] > 0.8
    assert a.importance_note is None


def test_there_is_no_importance_of_few_or_equal_trials(made):
    m = made()
    for i in range(3):
        m.trial(i / 3, 0.5)
    m.trial(0.9, 0.1, state="pruned")
    assert m.answer().importance == {}
    assert m.answer().importance_note.startswith("3 complete trials")
    m.trial(0.8, 0.5)
    assert "same value" in m.answer().importance_note


def test_a_parameter_that_only_some_trials_have_is_weighed_and_pointed_out():
    both = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
    trials = [create_trial(params={"x": i / 8}, distributions={"x": both["x"]}, value=i / 8) for i in range(8)]
    trials += [create_trial(params={"x": 0.5, "y": i / 8}, distributions=both, value=0.1) for i in range(8)]
    shares, note = importance(trials, "maximize")
    assert list(shares) == ["x", "y"]
    assert "16 trials" in note
    assert re.search(r"\by\b.*not set", note)


def test_a_python_sweep_is_ranked_by_its_settings_not_by_the_names_that_optuna_knows(tmp_path):
    (tmp_path / "space.py").write_text(
        "SWEEP = {'recipe': 'forum', 'objectives': [{'metric': 'eval/gold'}]}\n"
        "def suggest(trial):\n"
        "    return {'reward.alpha': trial.suggest_int('tenths', 0, 10) / 10}\n"
    )
    sweep, study = load_sweep(tmp_path / "space.py"), optuna.create_study(direction="maximize")
    study.enqueue_trial({"tenths": 3})
    trial = study.ask()
    sweep.suggest(trial)
    study.tell(trial, 0.5)
    row = answer(sweep, "space", study.get_trials(), {}).arm("t000")
    assert row.params == {"reward.alpha": 0.3}
    assert "reward.alpha=0.3" in shlex.split(row.command)


def test_what_was_spent_counts_confirmation_and_stopped_runs(made):
    m = made()
    m.trial(0.1, 0.1, 0.2, 0.3)
    m.trial(0.2, 0.1, state="pruned")
    m.confirm("t000", {"reward.alpha": 0.1, "reward.omega_min": 0.5}, 0.5)
    spent = m.answer(wall_s=1800).spent
    assert spent.runs == {"finished": 2, "pruned": 1}
    assert spent.trajectories == 5 * 8
    assert spent.worker_hours == pytest.approx(5 * 3 / 3600)
    assert spent.wall_hours == 0.5
    assert m.answer().spent.wall_hours is None


def test_the_alarm_of_an_arm_is_that_of_its_runs_in_the_search_and_on_fresh_seeds(made):
    m = made(seeds=[0, 1], baselines={"RLOO": RLOO})
    point = {"reward.alpha": 0.25, "reward.omega_min": 0.5}
    m.trial(0.25, 0.9)
    m.run("t000", point, 1, 0.5, 0.75, 0.5, alarm=2)
    m.run("rloo", RLOO, 0, 0.1)
    m.run("rloo", RLOO, 1, 0.1)
    said = "The alarm was raised in 1 of 1 runs of the search, of t000: their gold was 0.75 then, and 0.5 at the end."
    assert said in m.answer().verdict
    for seed, gold in ((100, 0.5), (101, 0.25)):
        m.run("t000", point, seed, gold, gold / 2, alarm=1)
        m.run("rloo", RLOO, seed, 0.25)
    a = m.answer()
    row, mine = a.arm("t000").alarm, a.confirmation[0].alarm
    assert (row.rounds, row.at, row.end) == ((2,), 0.75, 0.5)
    assert (mine.rounds, mine.at, mine.end) == ((1, 1), 0.375, 0.1875)
    assert (a.arm("rloo").alarm, a.confirmation[1].alarm) == (None, None)
    tree = json.loads(json.dumps(a.to_json(), allow_nan=False))
    assert tree["confirmation"][0]["alarm"]["at"] == 0.375
    assert [s for s in a.verdict if "2 of 2 runs on fresh seeds" in s and "0.375" in s and "0.188" in s]


def test_of_two_baselines_too_few_seeds_is_said_once(made):
    m = made(baselines={"RLOO": RLOO, "R2M default": {"reward.feedback": True}})
    m.trial(0.1, 0.9)
    m.trial(0.5, 0.5, baseline="R2M default")
    m.run("rloo", RLOO, 0, 0.1)
    m.confirm("t000", {"reward.alpha": 0.1, "reward.omega_min": 0.5}, 0.5, 0.5)
    m.confirm("t001", {"reward.alpha": 0.5, "reward.omega_min": 0.5}, 0.25, 0.25)
    m.confirm("rloo", RLOO, 0.125)
    assert m.answer().verdict[0] == (
        "Too few fresh seeds to tell t000 from R2M default, RLOO: on 1 to 2 fresh seeds each, mean gains in "
        "eval/gold of 0.25 to 0.375 say nothing about chance."
    )


def test_json_is_strict(made):
    m = made(**KL_AT_MOST_20)
    m.trial(0.1, 0.5)  # no KL: NaN, and an infinite violation
    tree = json.loads(json.dumps(m.answer().to_json(), allow_nan=False))
    row = tree["ranking"][0]
    assert (row["name"], row["kl"], row["violation"], row["feasible"]) == ("t000", None, None, False)
    assert tree["verdict"][0].startswith("No trial keeps")
