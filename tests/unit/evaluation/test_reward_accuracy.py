"""Accuracy on preference pairs, by hand."""

import math

import pytest

from r2m.evaluation.reward_accuracy import accuracy
from r2m.results.statistics import wilson_interval


def test_a_tie_is_wrong_and_is_counted() -> None:
    found = accuracy([2.0, 1.0, 0.5, -1.0], [1.0, 1.0, 0.7, -3.0])
    assert (found.accuracy, found.ties, found.n) == (0.5, 1, 4)
    # Wilson at 2 of 4: the centre is 1/2, half the width z sqrt(1/16 + z²/64) / (1 + z²/4).
    half = 1.959964 * math.sqrt(1 / 16 + 1.959964**2 / 64) / (1 + 1.959964**2 / 4)
    assert found.interval == pytest.approx((0.5 - half, 0.5 + half), abs=1e-9)
    assert found.interval == wilson_interval(0.5, 4)


def test_all_right_and_all_wrong() -> None:
    assert accuracy([1.0], [0.0]).accuracy == 1
    assert accuracy([0.0], [1.0]).accuracy == 0


@pytest.mark.parametrize(("chosen", "rejected"), [([], []), ([1.0], []), ([math.nan], [0.0])])
def test_what_cannot_be_counted_is_refused(chosen: list[float], rejected: list[float]) -> None:
    with pytest.raises(ValueError, match=r"at least one|NaN"):
        accuracy(chosen, rejected)
