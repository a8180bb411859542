"""What choosing a checkpoint by a signal costs in gold, of a run whose gold is on record."""

import math
from collections.abc import Mapping


def gold_regret(gold: Mapping[int, float], signal: Mapping[int, float]) -> float:
    """The best gold among the candidates, by round, less that of the one whose signal is highest.

    Candidates are the rounds with both, finite; of equal signals the earliest is chosen. NaN where there is none.
    """
    there = [step for step in sorted(gold) if math.isfinite(gold[step]) and math.isfinite(signal.get(step, math.nan))]
    chosen = max(there, key=lambda step: signal[step], default=None)
    return math.nan if chosen is None else max(gold[step] for step in there) - gold[chosen]
