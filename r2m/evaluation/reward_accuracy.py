"""How often a reward model scores the preferred response of a pair above the other one (Table 3, App. F.4).

Axes: N pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

from r2m.results.assessment import Accuracy
from r2m.results.statistics import wilson_interval


def accuracy(chosen_N: Sequence[float], rejected_N: Sequence[float]) -> Accuracy:
    """The share of pairs with r(x, y_w) > r(x, y_l), as F.4 counts them.

    Raises ValueError for no pairs, lengths that differ, or a score that is NaN.
    """
    if not len(chosen_N) == len(rejected_N) >= 1:
        raise ValueError(f"{len(chosen_N)} chosen and {len(rejected_N)} rejected: as many of each, at least one")
    pairs = list(zip(chosen_N, rejected_N, strict=True))
    if any(w != w or loser != loser for w, loser in pairs):
        raise ValueError("a score is NaN: no pair can be counted by it")
    share = sum(w > loser for w, loser in pairs) / len(pairs)
    ties = sum(w == loser for w, loser in pairs)
    return Accuracy(share, wilson_interval(share, len(pairs)), ties, len(pairs))
