"""Ω acts from t* = T arccos(2Ω - 1) / π on: half a run at Ω = 1/2, two thirds at 1/4, all of it at 0."""

import pytest

from r2m.config import Config, load
from r2m.sweeps.stopping import EarlyStopping, check_saves, evaluations_of, first_stop


def run(rounds: int, every: int, omega: float | None) -> Config:
    head = "reward.feedback=false" if omega is None else f"reward.omega_min={omega}"
    return load("forum", [f"algorithm.rounds={rounds}", f"run.eval_every={every}", head])


@pytest.mark.parametrize(("rounds", "every", "expected"), [(60, 6, 10), (63, 6, 11), (5, 6, 1), (6, 6, 1)])
def test_evaluations(rounds: int, every: int, expected: int) -> None:
    assert evaluations_of(run(rounds, every, 0.5)) == expected


@pytest.mark.parametrize(
    ("omega", "share", "expected"),
    [
        (0.5, 0.0, 5),  # t* = 30, the fifth evaluation, at round 30
        (0.25, 0.0, 7),  # t* = 40: round 42
        (0.0, 0.0, 10),
        (1.0, 0.0, 1),
        (0.5, 0.7, 7),  # the user's own grace is later: round 42
        (None, 0.0, 1),  # no feedback, no Ω
        (None, 0.5, 5),
        (None, 0.51, 6),  # round 30.6: the fifth evaluation, at 30, is just too early
        (None, 1.0, 10),
    ],
)
def test_first_stop(omega: float | None, share: float, expected: int) -> None:
    assert first_stop(run(60, 6, omega), share) == expected


def test_the_last_evaluation_may_be_off_the_grid() -> None:
    assert first_stop(run(63, 6, 0.0), 0.0) == 11  # rounds 6, ..., 60, 63


def test_the_worst_run_decides() -> None:
    median = EarlyStopping(kind="median")
    check_saves(median, [run(60, 6, 0.5), run(60, 6, 0.25)])
    check_saves(median, [run(60, 6, 0.5), run(12, 6, None)])  # the longer one has 10
    with pytest.raises(ValueError, match=r"Ω = 0.0 acts from 100% of a run on .* evaluation 10 of 10"):
        check_saves(median, [run(60, 6, 0.5), run(60, 6, 0.0)])


def test_a_grace_of_a_whole_run_saves_nothing() -> None:
    with pytest.raises(ValueError, match=r"nothing to save: grace = 1.0, so a trial could .* 10 of 10") as error:
        check_saves(EarlyStopping(kind="asha", grace=1.0), [run(60, 6, None)])
    assert "Ω =" not in str(error.value)
