"""What a few seeds can say: bootstrap intervals of a mean and of a paired difference, and an exact sign-flip test.

Sources: the percentile interval is Efron and Tibshirani's (An Introduction to the Bootstrap, 1993, ch. 13), the
sign-flip test Fisher's (The Design of Experiments, 1935, ch. 3), its sampled form with the observed assignment
counted in, so that p is never 0, Phipson and Smyth's (2010).

A percentile interval is too narrow for small n: of normal differences a nominal 95 % covers about 73 % at n = 3,
84 % at n = 5 and 90 % at n = 10. The sign-flip p has no such defect and says so by its size: the least that it can
be is 2 / 2^n, 0.25 at n = 3 and 0.0625 at n = 5.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

RESAMPLES = 10_000
EXACT_UP_TO = 12  # 4,096 flips
LEVEL = 0.95
FINDINGS = ("better", "worse", "not distinguishable", "too few seeds")
ENOUGH = 5  # seeds: fewer can all agree by chance in more than 2 / 2^5 of cases
MOST_P = 2 / 2**ENOUGH  # the least p that five seeds can show

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A mean over n, its 95 % interval (None for n = 1) and, of a difference, the two-sided p of "it is 0"."""

    mean: float
    interval: Interval | None
    n: int
    p: float | None = None

    @property
    def finding(self) -> str:
        """One of FINDINGS, of a difference, where more is better. Better or worse takes five seeds, an interval off 0
        and a sign-flip p of at most 0.0625: the interval alone is too narrow for a handful of seeds."""
        if self.n < ENOUGH:
            return "too few seeds"
        assert self.interval is not None
        assert self.p is not None
        low, high = self.interval
        if low <= 0 <= high or self.p > MOST_P:
            return "not distinguishable"
        return "better" if low > 0 else "worse"


def mean_estimate(values: Sequence[float], seed: int = 0) -> Estimate:
    """The mean of finite values with its bootstrap interval.

    Raises ValueError for no values, or one that is not finite.
    """
    x = _checked(values)
    return Estimate(float(x.mean()), _interval(x, seed), len(x))


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Estimate:
    """The mean of a - b over pairs (the same seed each), with interval and sign-flip p.

    Raises ValueError for no pairs, lengths that differ, or a value that is not finite.
    """
    if len(a) != len(b):
        raise ValueError(f"pairs have two values each: there are {len(a)} and {len(b)}")
    x = _checked(a) - _checked(b)
    return Estimate(float(x.mean()), _interval(x, seed), len(x), sign_flip_p(x.tolist(), seed))


def sign_flip_p(differences: Sequence[float], seed: int = 0) -> float:
    """The share of sign assignments whose mean is at least as far from 0 as the observed: all 2^n of them up to
    n = 12, else 10,000 sampled ones and the observed. 1 where all differences are 0.

    Raises ValueError as above.
    """
    x = _checked(differences)
    observed = abs(x.sum())
    if len(x) <= EXACT_UP_TO:
        signs = np.array(list(product((1.0, -1.0), repeat=len(x))))
    else:
        signs = np.random.default_rng(seed).choice((1.0, -1.0), size=(RESAMPLES + 1, len(x)))
        signs[0] = 1.0
    rounding = 1e-12 * np.abs(x).sum()  # sums of the same numbers in another order are equal
    return float((np.abs(signs @ x) >= observed - rounding).mean())


def wilson_interval(share: float, count: int) -> Interval:
    """95 % interval of a binomial share (Wilson's score interval)."""
    z = 1.959964
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def _interval(x: np.ndarray, seed: int) -> Interval | None:
    if len(x) == 1:
        return None
    rows = np.random.default_rng(seed).integers(0, len(x), (RESAMPLES, len(x)))
    low, high = np.quantile(x[rows].mean(1), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def _checked(values: Sequence[float]) -> np.ndarray:
    x = np.asarray(values, dtype=float)
    if not len(x):
        raise ValueError("no values: there is no mean of none")
    if not np.isfinite(x).all():
        raise ValueError(f"values = {x.tolist()}: all must be finite")
    return x
