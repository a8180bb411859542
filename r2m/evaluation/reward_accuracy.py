"""How often a reward model scores the preferred response of a pair above the other one (Table 3, App. F.4).

Axes: N pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from r2m.results.statistics import Interval, wilson_interval


@dataclass(frozen=True)
class Accuracy:
    """`interval` is Wilson's, 95 %: it takes pairs for independent, also those of one prompt."""

    accuracy: float
    interval: Interval
    ties: int  # pairs whose scores are equal: they count as wrong
    n: int


def accuracy(chosen_N: Sequence[float], rejected_N: Sequence[float]) -> Accuracy:
    """The share of pairs with r(x, y_w) > r(x, y_l), as F.4 counts them.

    Raises ValueError for no pairs, lengths that differ, or a score that is NaN.
    """
    if not len(chosen_N) == len(rejected_N) >= 1:
        raise ValueError(
            f"{len(chosen_N)} chosen and {len(rejected_N)} rejected: as many of each, at least one"
        )
    pairs = list(zip(chosen_N, rejected_N, strict=True))
    if any(w != w or loser != loser for w, loser in pairs):
        raise ValueError("a score is NaN: no pair can be counted by it")
    share = sum(w > loser for w, loser in pairs) / len(pairs)
    ties = sum(w == loser for w, loser in pairs)
    return Accuracy(share, wilson_interval(share, len(pairs)), ties, len(pairs))
