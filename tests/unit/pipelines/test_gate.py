"""The gate: what a comparison's own numbers let through, and that a number that is missing lets nothing through."""

import copy
import json

import pytest

from r2m.pipelines.gate import ChampionRate, candidate, decide
from r2m.pipelines.when import When
from r2m.results.assessment import Wins
from r2m.results.comparison import compare_runs
from r2m.results.comparison_text import numbers

R2M = ["reward.feedback=on"]
BETTER = {"difference": {"over": "RLOO"}}
WATCHED = ("eval/gold", "eval/kl_sequence", "eval/vanilla", "alarm/on")


def made(runs, gains=(0.2, 0.3, 0.25, 0.2, 0.3), kl=4.0, alarm=None, fields=WATCHED, start=None):
    """RLOO's gold is 1 on each seed, R2M's above it by these. `alarm`: a seed of R2M's on which it is raised."""
    for seed, gain in enumerate(gains):
        runs.run(f"rloo-{seed}", (0.5, 1.0, 1.0, 0.0), (1.0, 4.0, 1.0, 0.0), seed=seed, fields=fields)
        runs.run(
            f"r2m-{seed}", (0.5, 1.0, 1.0, 0.0), (1.0 + gain, kl + seed, 1.0, 0.0), seed=seed, settings=R2M,
            fields=fields, alarm=2 if seed == alarm else None, start=start,
        )  # fmt: skip
    return tree_of(runs)


def tree_of(runs, **how):
    return json.loads(json.dumps(numbers(*compare_runs(runs.results(), **how)), allow_nan=False))


def arm_in(tree, label="R2M"):
    return next(arm for arm in tree["setups"][0]["arms"] if arm["arm"] == label)


def decided(tree, when=BETTER, champion=None, arm="R2M"):
    return decide(tree, arm, When.model_validate(when), champion)


def wins(rate, low, high, n=64, **fields):
    return Wins("gold", "version 3", rate, (low, high), 2, 0, fields.get("unanswered", 0), n, None)


def beaten(*numbers, **fields):
    return ChampionRate("version 3", "old-run", wins(*numbers, **fields))


def test_a_clear_gain_without_an_alarm_is_promoted_with_all_its_numbers(runs):
    found = decided(made(runs), BETTER | {"kl_at_most": 8, "champion_win_rate": 0.5}, beaten(0.75, 0.625, 0.875))
    assert found.promote
    verdict, fresh, gain, kl, alarm, champion = found.sentences
    assert verdict == "R2M is promoted, its run r2m-2: all of the conditions hold."
    assert fresh == "Fresh: 5 finished runs on seeds 0, 1, 2, 3, 4, none a search's own."
    assert gain.startswith(
        "R2M is better than RLOO (mean gain in eval/gold 0.25, 95 % interval 0.21 to 0.29, p = 0.0625"
    )
    assert gain.endswith("; the interval's lower end, on five seeds or more, has to be at least 0.")
    assert kl == "KL: 6 nats per sequence in the mean and 8 at most; 8 are allowed."
    assert alarm == "None of its 5 runs raised the alarm."
    assert champion == (
        "Against the champion, version 3, it wins 75 % of 64 held-out prompts by gold (95 % interval 62.5 % to "
        "87.5 %, 2 ties); the interval's lower end has to be at least 50 %."
    )


def test_the_run_that_stands_for_an_arm_has_its_median_the_lower_of_two(runs):
    tree, when = made(runs, (0.5, 0.1, 0.4, 0.2)), When.model_validate(BETTER)
    assert candidate(tree, "R2M", when) == "r2m-3"
    del arm_in(tree)["each"][3]  # 0.1, 0.4, 0.5 are left
    assert candidate(tree, "R2M", when) == "r2m-2"
    arm_in(tree)["each"][2]["status"] = "failed"  # 0.1, 0.5
    assert candidate(tree, "R2M", when) == "r2m-1"
    assert candidate(tree, "GRPO", when) is None


@pytest.mark.parametrize("gains", [(-0.2, -0.3, -0.25, -0.2, -0.3), (0.4, -0.3, 0.3, -0.2, 0.1)])
def test_a_worse_policy_and_one_that_cannot_be_told_apart_are_refused(runs, gains):
    found = decided(made(runs, gains))
    assert not found.promote
    assert found.verdict == "R2M is not promoted: its gain over RLOO is not what is wanted."
    assert "R2M is worse than RLOO" in found.sentences[2] or "not distinguishable" in found.sentences[2]


def test_four_seeds_are_too_few_for_a_finding_but_not_for_a_mean(runs):
    tree = made(runs, (0.2, 0.3, 0.25, 0.2))
    assert not decided(tree).promote
    mean = {"difference": {"over": "RLOO", "at_least": 0.2, "finding": False}}
    assert decided(tree, mean).promote
    mean["difference"]["at_least"] = 0.25
    assert not decided(tree, mean).promote  # their mean is 0.2375


@pytest.mark.parametrize(("at_least", "promoted"), [(0.2, True), (0.22, False), (-0.5, True)])
def test_the_intervals_lower_end_has_to_be_it(runs, at_least, promoted):
    """Of the five gains, whose mean is 0.25, the interval begins at 0.21."""
    assert decided(made(runs), {"difference": {"over": "RLOO", "at_least": at_least}}).promote is promoted


def test_a_little_worse_is_let_through_where_that_is_asked_for(runs):
    tree = made(runs, (-0.01, -0.02, 0.0, -0.01, -0.02))
    assert decided(tree, {"difference": {"over": "RLOO", "at_least": -0.05}}).promote
    assert not decided(tree, {"difference": {"over": "RLOO", "at_least": -0.015}}).promote


def test_each_runs_kl_is_within_the_limit_not_just_their_mean(runs):
    found = decided(made(runs, kl=4.0), BETTER | {"kl_at_most": 7})
    assert found.verdict == "R2M is not promoted: its KL is beyond the limit."
    assert "6 nats per sequence in the mean and 8 at most; 7 are allowed." in found.sentences[3]


def test_an_alarm_in_one_run_is_enough_unless_it_is_no_condition(runs):
    tree = made(runs, alarm=3)
    found = decided(tree)
    assert found.verdict == "R2M is not promoted: the alarm was raised."
    assert found.sentences[-1] == "The alarm was raised in 1 of 5 runs, in round 2."
    assert decided(tree, BETTER | {"alarm": "any"}).promote


def test_runs_that_did_not_look_for_the_alarm_are_not_without_one(runs):
    found = decided(made(runs, fields=WATCHED[:3]))
    assert found.verdict == "R2M is not promoted: not all of its runs looked for the alarm."


def test_what_the_alarm_said_of_the_baseline_is_not_the_arms(runs):
    for seed in range(5):
        runs.run(f"b-{seed}", (1.0, 1.0, 1.0, 0.0), seed=seed, fields=WATCHED, alarm=1)
        runs.run(f"r-{seed}", (2.0 + seed / 10, 1.0, 1.0, 0.0), seed=seed, settings=R2M, fields=WATCHED)
    assert decided(tree_of(runs)).promote


def test_a_searchs_own_runs_are_not_fresh(runs):
    tree = made(runs, start={"tags": {"r2m.role": "search"}})
    found = decided(tree)
    assert found.verdict == "R2M is not promoted: its seeds are not fresh."
    assert "r2m-0" in found.sentences[1]


def test_seeds_on_which_the_arm_was_chosen_are_not_fresh(runs):
    tree = made(runs)
    assert decided(tree, BETTER | {"chosen_on": [7, 8]}).promote
    found = decided(tree, BETTER | {"chosen_on": [1, 7]})
    assert not found.promote
    assert found.sentences[1] == "It was chosen on seed 1, on which it is compared."


def test_the_first_promotion_has_no_champion_and_says_so(runs):
    found = decided(made(runs), BETTER | {"champion_win_rate": 0.5})
    assert found.promote
    assert found.sentences[-1] == "There is no champion yet to hold it against."


@pytest.mark.parametrize(
    ("rate", "promoted"),
    [
        ((0.75, 0.5, 0.9), True), ((0.75, 0.49, 0.9), False), ((0.4, 0.3, 0.45), False),
        ((1.0, 1.0, 1.0, 4), False),  # prompts: too few, whatever the interval
    ],
)  # fmt: skip
def test_the_win_rate_against_the_champion_is_held_by_its_intervals_lower_end(runs, rate, promoted):
    found = decided(made(runs), BETTER | {"champion_win_rate": 0.5}, beaten(*rate))
    assert found.promote is promoted
    assert promoted or found.verdict == "R2M is not promoted: it is not clearly better than the champion."


def test_a_champion_that_could_not_be_asked_is_not_beaten(runs):
    unknown = ChampionRate("version 3", "old-run", None, "no judge took no part in training")
    found = decided(made(runs), BETTER | {"champion_win_rate": 0.5}, unknown)
    assert found.verdict == "R2M is not promoted: its win rate against the champion is not known."
    assert found.sentences[-1].endswith("is not known: no judge took no part in training.")
    nothing = ChampionRate("version 3", "old-run", Wins("gold", "v", None, None, 0, 0, 12, 0, None))
    assert not decided(tree_of(runs), BETTER | {"champion_win_rate": 0.5}, nothing).promote


def test_the_champion_itself_is_not_promoted_again(runs):
    found = decided(made(runs), BETTER, ChampionRate("version 3", "r2m-2", None))
    assert (found.promote, found.sentences) == (False, ["R2M: its run r2m-2 is the champion already, version 3."])


def test_a_single_arm_may_be_held_against_the_champion_alone(runs):
    runs.run("alone", (1.0, 1.0, 1.0, 0.0), fields=WATCHED)
    when = {"champion_win_rate": 0.5}
    assert decided(tree_of(runs), when, beaten(0.75, 0.6, 0.9), arm="RLOO").promote


def test_at_the_same_kl_its_own_difference_counts(runs):
    tree = made(runs)
    (same,) = [d for d in tree["setups"][0]["differences"] if d["matched"] and d["metric"] == "eval/gold"]
    same["estimate"] |= {"mean": -1.0, "interval": [-1.2, -0.8]}
    assert not decided(tree, {"difference": {"over": "RLOO", "same_kl": True}}).promote
    assert decided(tree).promote


@pytest.mark.parametrize("difference", [{"over": "SFT"}, {"over": "RLOO", "metric": "eval/win_rate"},
                                        {"over": "RLOO", "metric": "eval/vanilla"}])  # fmt: skip
def test_a_difference_that_the_comparison_has_not_is_no_gain(runs, difference):
    found = decided(made(runs), {"difference": difference})
    assert found.verdict == f"R2M is not promoted: there is no paired difference from {difference['over']}."


def test_an_arm_that_is_not_there_or_twice_is_refused(runs):
    tree = made(runs)
    found = decided(tree, arm="GRPO")
    assert found.sentences == [
        "GRPO is not promoted: the comparison has no one arm GRPO; it has RLOO, R2M.",
        "The comparison has no one arm GRPO; it has RLOO, R2M.",
    ]
    two = copy.deepcopy(tree)
    two["setups"] *= 2
    assert "2 setups" in decided(two).verdict


def test_runs_that_have_not_finished_are_no_policies(runs):
    for seed in range(5):
        runs.run(f"b-{seed}", (1.0, 1.0, 1.0, 0.0), seed=seed, fields=WATCHED)
        runs.run(f"r-{seed}", (2.0, 1.0, 1.0, 0.0), seed=seed, settings=R2M, fields=WATCHED, status="running")
    found = decided(tree_of(runs))
    assert (found.promote, found.run) == (False, None)
    assert "no run of it has finished" in found.verdict


NEEDED = [  # of the difference, and of the arm
    ("difference", "estimate"), ("difference", "estimate", "mean"), ("difference", "estimate", "interval"),
    ("difference", "estimate", "n"), ("difference", "estimate", "p"), ("arm", "runs"), ("arm", "each"),
    ("arm", "alarm"), ("arm", "alarm", "watched"), ("arm", "each", 0, "values"),
    ("arm", "each", 4, "values", "eval/kl_sequence"),
]  # fmt: skip


@pytest.mark.parametrize("value", ["absent", None, "1"])
@pytest.mark.parametrize("path", NEEDED, ids=lambda path: ".".join(map(str, path)))
def test_a_number_that_is_missing_lets_no_promotion_pass(runs, path, value):
    tree, when = made(runs), BETTER | {"kl_at_most": 9}
    assert decided(tree, when).promote
    (difference,) = [
        d for d in tree["setups"][0]["differences"] if d["metric"] == "eval/gold" and not d["matched"]
    ]  # fmt: skip
    place = {"difference": difference, "arm": arm_in(tree)}[path[0]]
    for key in path[1:-1]:
        place = place[key]
    if value == "absent":
        del place[path[-1]]
    else:
        place[path[-1]] = {} if value == "1" and isinstance(place[path[-1]], dict) else value
    if value == "1" and path[-1] in ("runs", "each", "interval"):
        place[path[-1]] = []
    assert not decided(tree, when).promote


def test_a_comparison_that_does_not_say_where_runs_are_from_has_no_fresh_ones(runs):
    tree = made(runs)
    del arm_in(tree)["each"][2]["role"]
    assert decided(tree).verdict == "R2M is not promoted: its seeds may not be fresh."


def test_an_arm_goes_by_its_sweeps_name_for_it_too(runs):
    """Runs of two sweeps, whose arms' labels have the sweep's name before theirs."""
    for seed in range(5):
        for sweep, label, gold in (("n-1", "plain", 1.0), ("n-2", "with head", 1.25 + seed / 100)):
            settings = R2M if label == "with head" else []
            tags = {"r2m.sweep": sweep, "r2m.trial": label, "r2m.role": "baseline"}
            runs.run(f"{sweep}-{seed}", (gold, 1.0, 1.0, 0.0), seed=seed, settings=settings, fields=WATCHED,
                     start={"tags": tags})  # fmt: skip
    tree = tree_of(runs)
    assert {arm["arm"] for arm in tree["setups"][0]["arms"]} == {"n-1 plain", "n-2 with head"}
    assert decided(tree, {"difference": {"over": "plain"}}, arm="with head").promote
    assert decided(tree, {"difference": {"over": "RLOO"}}, arm="R2M").promote


def test_of_nothing_there_is_a_refusal_and_no_fault():
    for setups in ([], [{}], [{"arms": [{}]}], [{"arms": [{"arm": "R2M"}]}]):
        assert not decided({"setups": setups}).promote
    assert not decided({}).promote


def test_conditions_that_only_keep_harm_away_are_no_gate():
    with pytest.raises(ValueError, match="difference or champion_win_rate is needed"):
        When.model_validate({"kl_at_most": 3})
