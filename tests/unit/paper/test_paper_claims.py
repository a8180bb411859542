"""The verdict on each claim, from numbers whose outcome is known."""

import re

import pytest
from made_paper import MadePaper, cost, whole

from r2m.paper.claims import Contrast, cheap, judge_all
from r2m.reports.paper_page import FAILS, HOLDS, OPEN
from r2m.results.experiment import Experiment
from r2m.results.table import Values

CHEAP = "R2M costs negligibly more than RLOO"  # judged by its repetitions, not by seeds


def verdicts(r: Experiment) -> dict[str, str]:
    return {j.claim: j.verdict for j in judge_all(r)}


def sentence(r: Experiment, text: str) -> str:
    return next(j.why for j in judge_all(r) if j.claim == text)


def by_seed(*values: float) -> Values:
    return dict(enumerate(values))


@pytest.mark.parametrize(("claimed", "verdict"), [(True, HOLDS), (False, FAILS)])
def test_every_claim_can_hold_and_fail(made: MadePaper, claimed: bool, verdict: str) -> None:
    assert set(verdicts(whole(made, 5, claimed)).items()) == {(j.claim, verdict) for j in judge_all(made.results())}


def test_no_claim_is_judged_by_four_seeds(made: MadePaper) -> None:
    found = verdicts(whole(made, 4))
    assert found.pop(CHEAP) == HOLDS
    assert set(found.values()) == {OPEN}


def test_without_runs_every_claim_says_why_it_is_open(made: MadePaper) -> None:
    for j in judge_all(made.results()):
        assert j.verdict == OPEN
        assert j.why.endswith(".")


def test_the_sentence_has_the_difference_its_interval_and_its_seeds(made: MadePaper) -> None:
    # R2M: 0.66 + 0.003 seed, mean 0.666; RLOO: 0.56 + 0.001 seed, mean 0.562
    said = sentence(whole(made), "R2M has a higher win rate than RLOO")
    assert re.search(r"R2M − RLOO.*\+10\.4 points.*95 %.*p = 0\.0625.*5 seeds", said)


def test_the_length_controlled_claim_is_of_length_controlled_rates(made: MadePaper) -> None:
    """Where they say the opposite of the plain ones: R2M wins by length."""
    for seed in range(5):
        made.assess("RLOO", seed, rate=0.5, controlled=0.5 + 0.01 * seed)
        made.assess("R2M", seed, rate=0.7, controlled=0.4 + 0.01 * seed)
    found = verdicts(made.results())
    assert found["R2M has a higher win rate than RLOO"] == HOLDS
    assert found["R2M has a higher length-controlled win rate than RLOO"] == FAILS
    assert "−10 points" in sentence(made.results(), "R2M has a higher length-controlled win rate than RLOO")


def test_the_best_baseline_may_be_the_supervised_policy(made: MadePaper) -> None:
    for seed in range(5):
        for arm, rate in (("SFT", 0.9), ("RLOO", 0.2), ("R2M", 0.4)):  # SFT's own rate is 1/2, whatever is on file
            made.assess(arm, seed, rate=rate)
    said = sentence(made.results(), "R2M has a higher win rate than the best baseline")
    assert re.search(r"best baseline is SFT.*R2M − SFT.*−10 points.*GRPO, ReMax, REINFORCE\+\+", said)
    assert verdicts(made.results())["R2M has a higher win rate than the best baseline"] == FAILS


def test_at_equal_length_other_shares_decide(made: MadePaper) -> None:
    for seed in range(5):
        made.assess("RLOO", seed, rate=0.3, controlled=0.6)
        made.assess("R2M", seed, rate=0.5, controlled=0.4)
    found = verdicts(made.results())
    assert found["R2M has a higher win rate than RLOO"] == HOLDS
    assert found["R2M has a higher length-controlled win rate than RLOO"] == FAILS
    said = sentence(made.results(), "R2M has a higher length-controlled win rate than RLOO")
    assert said.startswith("Length-controlled win rate, R2M − RLOO: −20 points")


def test_what_cannot_be_told_from_0_is_open() -> None:
    verdict, said = Contrast("Gold", by_seed(0.1, -0.1, 0.2, -0.2, 0.0), by_seed(0, 0, 0, 0, 0)).judged()
    assert verdict == OPEN
    assert "5 seeds" in said
    assert "not told from 0" in said


@pytest.mark.parametrize(("claimed", "words"), [(1, "as claimed"), (-1, "against the claim")])
def test_a_few_seeds_give_a_direction_and_no_verdict(claimed: int, words: str) -> None:
    verdict, said = Contrast("Gold", by_seed(0.3, 0.4), by_seed(0.1, 0.1), claimed).judged()
    assert verdict == OPEN
    for fact in ("Gold", "+0.25", "0.2 to 0.3", "p = 0.5", "2 seeds", words, "too few"):
        assert fact in said


def test_only_seeds_of_both_sides_count() -> None:
    _, said = Contrast("Gold", {0: 1.0, 1: 5.0}, {1: 4.0, 2: 0.0}).judged()
    for fact in ("+1 ", "no interval", "p = 1", "1 seed", "as claimed", "too few"):
        assert fact in said


@pytest.mark.parametrize(("judge", "words"), [("gold", "Gold, "), ("vanilla", "Win rate over the references, ")])
def test_nothing_is_prevented_where_rloo_does_not_collapse(made: MadePaper, judge: str, words: str) -> None:
    """By gold where there is one, else by the win rate against the references."""
    for seed in range(5):
        for arm, height in (("SFT", 0.3), ("RLOO", 0.5), ("R2M", 0.7)):
            made.assess(arm, seed, over_references=height, gold=height if judge == "gold" else None, judge=judge)
    text = "R2M prevents the collapse that RLOO has"
    assert verdicts(made.results())[text] == OPEN
    said = sentence(made.results(), text)
    assert re.search(rf"RLOO collapses is not shown.*{words}RLOO − SFT.*\+", said)


def test_a_claim_of_two_parts_fails_by_either(made: MadePaper) -> None:
    for seed in range(5):
        for arm, rate in (("RLOO", 0.3), ("R2M", 0.5), ("R2M, no BT", 0.6)):  # above RLOO, but above R2M too
            made.assess(arm, seed, rate=rate)
    assert verdicts(made.results())["R2M without BT lies between RLOO and R2M"] == FAILS


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.0, HOLDS), (1.04, OPEN), (1.1, FAILS)],  # time: 1.04 to 1.08, memory 1.04, each times the factor
)
def test_the_cost_is_judged_by_its_extremes(made: MadePaper, factor: float, verdict: str) -> None:
    found, said = cheap(made.results(cost=cost(factor)))
    assert found == verdict
    assert f"{1.06 * factor:.3g} of RLOO's" in said
    assert "RLOO 100, 100 MiB" in said
