"""Bootstrap distributions that can be written down, and sign flips counted by hand."""

import math

import pytest

from r2m.results.statistics import mean_estimate, paired_difference, sign_flip_p, wilson_interval


def test_the_interval_is_the_percentiles_of_the_bootstrap_distribution():
    # The number of 1s in a resample is binomial(2, 1/2): 0, 1/2 and 1 with probabilities 1/4, 1/2, 1/4.
    assert mean_estimate([0.0, 1.0]).interval == (0.0, 1.0)
    # binomial(4, 1/4): all four with probability 1/256, at least three with 13/256 = 0.051 > 0.025.
    estimate = mean_estimate([0.0, 0.0, 0.0, 4.0])
    assert (estimate.mean, estimate.interval, estimate.n) == (1.0, (0.0, 3.0), 4)


def test_equal_values_have_an_interval_of_no_width():
    assert mean_estimate([0.5, 0.5, 0.5]).interval == (0.5, 0.5)


def test_one_value_has_no_interval():
    assert mean_estimate([2.0]) == mean_estimate([2.0], seed=7)
    assert mean_estimate([2.0]).interval is None
    assert paired_difference([2.0], [1.5]).interval is None


def test_the_interval_is_about_1_96_standard_errors_wide_where_n_is_large():
    values = [float(i % 2) for i in range(1000)]
    low, high = mean_estimate(values).interval
    assert (0.5 - low, high - 0.5) == pytest.approx((1.96 * 0.5 / math.sqrt(1000),) * 2, rel=0.05)


def test_resampling_is_seeded():
    values = [0.1, 0.7, 0.2, 0.9, 0.4, 0.45]
    assert mean_estimate(values, seed=1) == mean_estimate(values, seed=1)
    assert mean_estimate(values, seed=1).interval != mean_estimate(values, seed=2).interval


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0], 1.0),
        ([1.0, 1.0, 1.0], 2 / 8),
        ([-3.0, -0.1, -2.0, -1.0, -5.0], 2 / 32),
        ([1.0, 2.0, -0.5], 4 / 8),  # |sums|: 3.5, 2.5, 0.5, 1.5, twice each; observed 2.5
        ([1.0, 1.0, 0.0], 4 / 8),  # the sign of 0 is no matter
        ([0.0, 0.0, 0.0], 1.0),
        ([0.1, 0.2, -0.3], 1.0),  # sums to 0 but for rounding
        ([0.3, 0.1, 0.2] * 4, 2 / 4096),
    ],
)
def test_sign_flips_are_counted_exactly(differences, p):
    assert sign_flip_p(differences) == p


def test_more_than_twelve_differences_are_sampled_with_the_observed_signs_counted_in():
    assert sign_flip_p([1.0] * 40) == 1 / 10_001
    assert sign_flip_p([1.0] * 13) != 2 / 2**13
    # 13 ones and a -1: |sum| >= 12 where at most one sign differs from the rest: 2 * (1 + 14) of 2^14.
    assert sign_flip_p([1.0] * 13 + [-1.0]) == pytest.approx(30 / 2**14, abs=1.5e-3)
    assert sign_flip_p([1.0, -1.0] * 7) == 1.0


def test_a_paired_difference_is_of_pairs():
    better = paired_difference([1.0, 12.0, 103.0], [0.0, 10.0, 100.0])
    assert better.mean == 2.0
    assert better.interval == (1.0, 3.0)  # three equal draws have probability 1/27 = 0.037
    assert (better.n, better.p) == (3, 0.25)
    worse = paired_difference([0.0, 10.0, 100.0], [1.0, 12.0, 103.0])
    assert (worse.mean, worse.interval, worse.p) == (-2.0, (-3.0, -1.0), 0.25)


def test_nothing_can_be_said_of_no_pairs_or_of_values_that_are_none():
    with pytest.raises(ValueError, match="no values"):
        mean_estimate([])
    with pytest.raises(ValueError, match="no values"):
        paired_difference([], [])
    with pytest.raises(ValueError, match=r"values = \[1.0, nan\]"):
        paired_difference([1.0, math.nan], [0.0, 0.0])
    with pytest.raises(ValueError, match="there are 2 and 1"):
        paired_difference([1.0, 2.0], [0.0])


@pytest.mark.parametrize(
    ("share", "count", "expected"),
    [
        (0.8, 10, (0.490, 0.943)),  # tables of Wilson's interval
        (0.5, 100, (0.404, 0.596)),
        (1.0, 10, (0.722, 1.0)),
        (0.0, 10, (0.0, 0.278)),
    ],
)
def test_wilsons_interval(share, count, expected):
    assert wilson_interval(share, count) == pytest.approx(expected, abs=1e-3)
