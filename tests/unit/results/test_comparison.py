"""Means, paired differences and values at matched KL by hand, and what may be said of them."""

import math
import re

import pytest

from r2m.errors import UserError
from r2m.results.comparison import SECONDS, compare_runs, matched
from r2m.results.comparison_text import sentences
from r2m.results.readings import at_kl, trajectory

R2M = ["reward.feedback=on"]


def one(runs, **asked):
    (comparison,), _ = compare_runs(runs.results(), **asked)
    return comparison


def pairs(runs, golds, **fields):
    """RLOO and R2M on as many seeds: (RLOO's last gold, R2M's). Both gain 1 in the vanilla reward and end at KL 4."""
    for seed, (rloo, r2m) in enumerate(golds):
        runs.run(f"rloo-{seed}", (0.5, 1.0, 1.0), (rloo, 4.0, 2.0), seed=seed, **fields)
        runs.run(f"r2m-{seed}", (0.5, 1.0, 1.0), (r2m, 4.0, 2.0), seed=seed, settings=R2M, **fields)


def test_at_kl_interpolates_where_the_kl_is_first_reached():
    points = [(1.0, 0.0), (3.0, 1.0), (2.0, 5.0), (4.0, 9.0)]
    assert at_kl(points, 2.0) == 0.5
    assert at_kl(points, 3.0) == 1.0
    assert at_kl(points, 3.5) == 5.0 + 4.0 * 0.75  # between 2 and 4, since 3.5 is first reached there
    assert at_kl(points, 0.5) == 0.0
    assert at_kl(points, 5.0) == 9.0
    assert math.isnan(at_kl([], 1.0))


def test_matched_takes_the_largest_kl_that_both_reach():
    a, b = [(1.0, 0.0), (5.0, 4.0)], [(2.0, 1.0), (3.0, 7.0), (2.5, 8.0)]
    assert matched(a, b) == (3.0, 2.0, 7.0)
    assert matched(b, a) == (3.0, 7.0, 2.0)
    a, b = [(1.0, 90.0), (5.0, 4.0)], [(2.0, 100.0), (3.0, 7.0)]  # values that are no KL
    assert matched(a, b) == (3.0, 47.0, 7.0)
    assert matched(b, a) == (3.0, 7.0, 47.0)


def test_runs_that_share_no_kl_are_not_matched():
    assert matched([(1.0, 0.0), (2.0, 1.0)], [(3.0, 1.0), (4.0, 1.0)]) is None
    assert matched([], [(3.0, 1.0)]) is None
    assert matched([(math.nan, 1.0)], [(3.0, 1.0)]) is None
    assert matched([(math.nan, 9.0), (3.0, 1.0)], [(3.0, 2.0)]) == (3.0, 1.0, 2.0)


def test_a_trajectory_has_the_rounds_with_both(runs):
    view = runs.run("a", (0.1, 1.0), (0.2,), (0.3, 2.0))
    assert trajectory(view, "eval/gold") == {1: (1.0, 0.1), 3: (2.0, 0.3)}
    assert trajectory(view, "reward/gold") == {1: (1.0, 0.1), 3: (2.0, 0.3)}  # with the round's own KL


def test_a_row_has_the_means_of_finished_runs_alone(runs):
    runs.run("a", (0.0, 1.0), (0.25, 3.0), seed=0)
    runs.run("b", (0.0, 1.0), (0.75, 5.0), seed=1)
    runs.run("c", (9.0, 9.0), seed=2, status="stopped")
    (row,) = one(runs).rows
    assert (row.values["eval/gold"].mean, row.values["eval/gold"].n) == (0.5, 2)
    assert row.values["eval/gold"].interval == (0.25, 0.75)
    assert row.values["eval/gold"].p is None  # a mean, no difference
    assert (row.gain["eval/gold"].mean, row.gain["eval/gold"].p) == (0.5, 0.5)
    assert row.values["eval/kl_sequence"].mean == 4.0
    assert row.values[SECONDS].mean == 6.0  # two rounds of 2 s, two evaluations of 1 s
    assert "eval/win_rate" not in row.values
    assert not row.so_far


def test_an_arm_without_a_finished_run_is_shown_so_far_and_is_in_no_difference(runs):
    runs.run("a", (0.5, 1.0))
    runs.run("b", (0.75, 1.0), settings=R2M, status="running")
    c = one(runs)
    assert [(row.arm.label, row.so_far) for row in c.rows] == [("RLOO", False), ("R2M", True)]
    assert c.rows[1].values["eval/gold"].mean == 0.75
    assert c.rows[1].gain == {}  # of one evaluation
    assert c.differences == ()
    assert [s for s in sentences(c) if "R2M" in s and "finished" in s and "not compared" in s]


def test_differences_are_of_the_seeds_that_both_have(runs):
    pairs(runs, [(0.25, 0.5), (0.25, 1.0)])
    runs.run("alone", (0.0, 1.0), (9.0, 4.0), seed=7)
    end, kl, vanilla = one(runs).differences
    assert (end.arm, end.metric, end.matched, end.seeds, end.kl) == ("R2M", "eval/gold", False, (0, 1), (4.0, 4.0))
    assert (end.estimate.mean, end.estimate.n, end.estimate.finding) == (0.5, 2, "too few seeds")
    assert (kl.matched, kl.estimate.mean, kl.kl) == (True, 0.5, (4.0, 4.0))
    assert (vanilla.metric, vanilla.matched, vanilla.estimate.mean) == ("eval/vanilla", True, 0.0)


def test_a_pair_with_a_value_that_is_none_is_left_out_and_an_arm_without_one_comes_last(runs):
    pairs(runs, [(0.25, math.nan), (math.nan, 0.5), (0.25, 1.0)])
    runs.run("grpo", (), settings=["algorithm.advantage=grpo"])
    end, *_ = one(runs).differences
    assert (end.seeds, end.estimate.mean) == ((2,), 0.75)
    assert [row.arm.label for row in one(runs).rows] == ["RLOO", "R2M", "GRPO"]


def test_gold_at_the_same_kl_differs_from_gold_at_the_end(runs):
    runs.run("rloo", (0.5, 1.0), (0.75, 3.0))
    runs.run("r2m", (0.5, 1.0), (1.5, 5.0), settings=R2M)  # at KL 3 half-way: 1.0
    end, kl, *_ = one(runs).differences
    assert end.estimate.mean == 0.75
    assert kl.estimate.mean == 0.25
    assert (end.kl, kl.kl) == ((5.0, 3.0), (3.0, 3.0))


def test_the_baseline_is_rloo_if_not_asked_and_comes_first(runs):
    runs.run("r2m", (0.9, 1.0), settings=R2M)
    runs.run("grpo", (0.5, 1.0), settings=["algorithm.advantage=grpo"])
    runs.run("rloo", (0.1, 1.0))
    assert [row.arm.label for row in one(runs).rows] == ["RLOO", "R2M", "GRPO"]  # then by gold
    assert [row.arm.label for row in one(runs, baseline="GRPO").rows] == ["GRPO", "R2M", "RLOO"]
    with pytest.raises(UserError, match=r"--baseline 'PPO': 'R2M', 'GRPO', 'RLOO' are allowed"):
        one(runs, baseline="PPO")


def test_what_judges_is_the_first_that_there_is(runs):
    runs.run("a", (1.0, 0.5), fields=("eval/vanilla", "eval/kl_sequence"))
    assert one(runs).metric == "eval/vanilla"
    runs.run("b", (0.5,), fields=("eval/win_rate",), seed=1)
    assert one(runs).metric == "eval/win_rate"
    runs.run("c", (1.0, 0.5), fields=("eval/vanilla", "eval/kl_sequence"), settings=R2M)
    assert one(runs).metric == "eval/win_rate"  # one arm has it, which is enough
    with pytest.raises(UserError, match="--metric 'eval/proxy': eval/gold, eval/win_rate, eval/vanilla are allowed"):
        one(runs, metric="eval/proxy")


def test_better_takes_five_seeds_and_says_its_numbers(runs):
    pairs(runs, [(0.25, 0.5), (0.25, 0.75), (0.25, 0.5), (0.25, 0.75), (0.25, 0.5)])
    c = one(runs)
    assert c.differences[0].estimate.finding == "better"
    end, kl = sentences(c)[:2]
    for said in (end, kl):
        for fact in ("R2M is better than RLOO", "eval/gold", "0.35", "0.25 to 0.45", "p = 0.0625", "5 seeds"):
            assert fact in said
    assert ("same KL" in end, "same KL" in kl) == (False, True)


def test_hacking_is_said_where_gold_falls_and_the_frozen_reward_rises_on_five_seeds(runs):
    pairs(runs, [(0.25, 0.5), (0.25, 0.75), (0.0, 0.5), (0.25, 0.75), (0.0, 0.5)])
    *_, told = sentences(one(runs))  # R2M's gold does not fall
    assert told.startswith("Reward hacking")
    assert re.search(r"RLOO.*gold −0\.35.*−0\.45 to −0\.25.*vanilla reward 1\b.*1 to 1.*5 seeds", told)
    assert "R2M" not in told


def test_with_few_seeds_the_same_is_said_with_its_doubt(runs):
    pairs(runs, [(0.25, 0.5)])
    *_, told = sentences(one(runs))
    assert "fewer than five seeds" in told
    assert "hacking" in told
    assert re.search(r"RLOO.*gold −0\.25.*vanilla reward 1\b.*1 seed\b", told)
    assert "interval" not in told


def test_of_more_than_two_arms_those_that_hack_are_listed(runs):
    for seed in range(5):
        for name in ("rloo", "grpo", "remax"):
            last = 0.75 if name == "remax" else 0.25
            settings = [f"algorithm.advantage={name}"]
            runs.run(f"{name}-{seed}", (0.5, 1.0, 1.0), (last, 4.0, 2.0), seed=seed, settings=settings)
    *_, told = sentences(one(runs))
    assert told.startswith("Reward hacking")
    assert "RLOO, GRPO" in told
    assert "ReMax" not in told


def test_one_seed_each_is_said_once(runs):
    runs.run("rloo", (0.5, 1.0))
    for i, advantage in enumerate(("grpo", "remax")):
        runs.run(advantage, (0.25 * i, 1.0), settings=[f"algorithm.advantage={advantage}"])
    told = sentences(one(runs))
    assert "Too few seeds to tell ReMax, GRPO from RLOO" in told[0]
    assert "−0.5 to −0.25" in told[0]
    assert [s for s in told if "ReMax" in s and "eval/gold" in s and "same KL" not in s] == [told[0]]


def test_many_arms_are_listed_with_what_chance_alone_would_give(runs):
    for seed in range(5):
        runs.run(f"rloo-{seed}", (0.5, 1.0), seed=seed)
        for i in range(8):
            gold = 0.75 if i == 0 else 0.5
            runs.run(f"r{i}-{seed}", (gold,), settings=[*R2M, f"reward.omega_min=0.{i + 1}"], seed=seed)
    listed, *rest = sentences(one(runs))
    assert re.search(r"R2M · reward\.omega_min=0\.1 is better than RLOO.*; 7 arms are not distinguishable", listed)
    assert [s for s in rest if "chance" in s and "8 comparisons" in s and "0.5" in s]  # 8 · 2/32


def test_the_headline_is_of_what_can_be_told_and_too_few_seeds_is_said_once(runs):
    for seed in range(5):
        runs.run(f"rloo-{seed}", (0.5, 1.0), seed=seed)
        for name, gold in (("grpo", 0.25), ("remax", 0.5)):
            runs.run(f"{name}-{seed}", (gold, 1.0), settings=[f"algorithm.advantage={name}"], seed=seed)
        for i in range(2 if seed < 2 else 1 if seed < 3 else 0):
            runs.run(f"r{i}-{seed}", (0.75 + i, 1.0), settings=[*R2M, f"reward.alpha=0.{i + 1}"], seed=seed)
    headline, same, few = sentences(one(runs))
    assert headline == (
        "No arm can be said to be better than RLOO by eval/gold; ReMax is not distinguishable from it; GRPO is worse."
    )
    assert "same KL" in same
    assert "findings are the same" in same
    assert re.search(r"^Too few seeds.*R2M · reward\.alpha=0\.2, R2M · reward\.alpha=0\.1 from RLOO", few)
    assert re.search(r"2 to 3 seeds each, mean gains in eval/gold of 0\.25 to 1\.25 ", few)


def test_no_shared_seed_no_evaluation_and_one_arm_are_said(runs):
    runs.run("a", (0.5, 1.0), seed=0)
    assert sentences(one(runs))[0].startswith("One arm, RLOO")
    runs.run("b", (0.5, 1.0), seed=1, settings=R2M)
    assert [s for s in sentences(one(runs)) if "RLOO and R2M" in s and "no paired difference" in s]


def test_runs_without_an_evaluation_are_no_comparison(runs):
    runs.run("a", (0.5,), fields=("reward/gold",))
    runs.run("b", settings=R2M, status="running")
    c = one(runs)
    assert (c.metric, c.differences) == (None, ())
    (told,) = sentences(c)
    for fact in ("RLOO, R2M", "held-out", "run.eval_every"):
        assert fact in told


def test_the_height_of_the_frozen_reward_is_judged_at_the_same_kl_alone(runs):
    for seed in range(5):
        for name, reward, settings in (("a", 1.0, []), ("b", 2.0, R2M)):
            fields = ("eval/kl_sequence", "eval/vanilla")
            runs.run(f"{name}{seed}", (2.0, reward), settings=settings, seed=seed, fields=fields)
    (told,) = sentences(one(runs))
    assert re.search(r"R2M is better than RLOO.*eval/vanilla.*same KL 1\b", told)


def test_of_one_setup_there_is_nothing_to_mind(runs):
    pairs(runs, [(0.25, 0.5)])
    assert compare_runs(runs.results())[1] == []


def test_notes_on_setups_repeats_and_a_searchs_own_runs(runs):
    runs.run("a", (0.5, 1.0), start={"tags": {"r2m.role": "search"}})
    runs.run("again", (0.5, 1.0))
    runs.run("b", (0.5, 1.0), settings=["task.artefact=0.5"])
    comparisons, notes = compare_runs(runs.results())
    assert len(comparisons) == 2
    setups, left_out, searched = notes
    assert "2 setups" in setups
    assert re.search(r"\bagain\b", left_out)
    assert re.search(r"\b1\b.*search", searched)
