"""What a paired difference may be called, and what the sentence about it has to say."""

import re

import pytest

from r2m.results.numbers import sentence
from r2m.results.statistics import Estimate


@pytest.mark.parametrize(
    ("mean", "interval", "n", "p", "found"),
    [
        (0.2, (0.1, 0.3), 5, 0.0625, "better"),
        (-0.2, (-0.3, -0.1), 5, 0.0625, "worse"),
        (0.2, (0.1, 0.3), 5, 0.125, "not distinguishable"),  # the interval of five is too narrow to stand alone
        (0.2, (0.1, 0.3), 9, 0.07, "not distinguishable"),
        (0.2, (-0.1, 0.3), 9, 0.05, "not distinguishable"),
        (0.2, (0.0, 0.3), 9, 0.05, "not distinguishable"),
        (-0.2, (-0.3, 0.0), 9, 0.05, "not distinguishable"),
        (0.2, (0.1, 0.3), 4, 0.125, "too few seeds"),
        (0.2, None, 1, 1.0, "too few seeds"),
    ],
)
def test_a_finding_takes_five_seeds_the_interval_and_the_sign_flips(mean, interval, n, p, found):
    assert Estimate(mean, interval, n, p).finding == found


def numbers(text):
    return re.findall(r"[−+]?\d+(?:\.\d+)?", text)


@pytest.mark.parametrize(
    ("estimate", "words", "expected"),
    [
        (Estimate(0.2, (0.1, 0.3), 5, 0.0625), "A is better than B", ["0.2", "95", "0.1", "0.3", "0.0625", "5"]),
        (Estimate(-2.5, (-3.0, -2.0), 6, 0.03125), "A is worse than B", ["−2.5", "95", "−3", "−2", "0.0312", "6"]),
        (Estimate(0.2, (-0.1, 0.3), 9, 0.5), "not distinguishable", ["0.2", "95", "−0.1", "0.3", "0.5", "9"]),
        # fewer than five: all of one sign by chance in 2 of 2^n cases
        (Estimate(0.2, (0.1, 0.3), 4, 0.125), "A is better than B on each of 4", ["4", "0.2", "4", "1", "8"]),
        (Estimate(-0.2, (-0.3, -0.1), 3, 0.25), "A is worse than B on each of 3", ["3", "−0.2", "3", "1", "4"]),
        (Estimate(0.2, (-0.1, 0.3), 3, 0.75), "not told apart by 3", ["3", "0.2", "3", "1", "4"]),
        (Estimate(0.0, (-0.1, 0.1), 2, 1.0), "not told apart by 2", ["2", "0", "2", "1", "2"]),
        (Estimate(0.2, None, 1, 1.0), "One seed cannot tell A from B", ["0.2"]),
    ],
)
@pytest.mark.parametrize("lower", [False, True])
def test_a_sentence_has_the_finding_and_every_number_and_claims_no_more(estimate, words, expected, lower):
    said = sentence("A", "B", "the metric", estimate, lower=lower)
    assert words in said
    assert numbers(said) == expected
    assert "the metric" in said
    assert ("lower is better" in said) == lower
    assert ("p =" in said) == ("interval" in said) == (estimate.n >= 5)
    assert ("chance" in said) == (estimate.n < 5)


def test_a_sentence_calls_its_pairs_as_asked():
    for n in (1, 2, 5):
        assert "fresh seed" in sentence("A", "B", "m", Estimate(0.2, (0.1, 0.3), n, 2 / 2**n), "fresh seed")
