"""What a journal says of its run in a number: its last value of a metric, its cost, its value at a given KL."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from r2m.runs.journal import JournalView

KL = "eval/kl_sequence"


def mean(values: Iterable[float]) -> float:
    """NaN of none, or where one is NaN."""
    values = list(values)
    return fmean(values) if values else math.nan


def last(view: JournalView, metric: str) -> float:
    """NaN where the run has none."""
    return (view.series(metric)[1] or [math.nan])[-1]


def cost(view: JournalView) -> tuple[int, float]:
    """Trajectories sampled for training, and worker-seconds of rounds and evaluations."""
    seconds = sum(m.get("time/round_s", 0.0) + m.get("time/eval_s", 0.0) for m in view.rounds.values())
    workers = view.start["config"]["run"]["workers"]
    return len(view.rounds) * trajectories_a_round(view), seconds * workers


def trajectories_a_round(view: JournalView) -> int:
    """n K, of all workers."""
    a = view.start["config"]["algorithm"]
    return a["queries"] * a["responses"]


def way(view: JournalView, metric: str) -> list[tuple[float, float]]:
    """(held-out KL in nats per sequence, the metric) of the evaluations that have both, in their order."""
    return [(m[KL], m[metric]) for m in view.rounds.values() if KL in m and metric in m]


def at_kl(points: Sequence[tuple[float, float]], kl: float) -> float:
    """The value where a run's held-out KL first reaches `kl` nats, interpolated linearly between the evaluations
    before and after: the first evaluation's if that is beyond it, the last one's if none is. NaN of no points.

    Args:
        points: as `way` gives them.
    """
    for i, (here, value) in enumerate(points):
        if here >= kl:
            if i == 0:
                return value
            before, value_before = points[i - 1]
            return value_before + (value - value_before) * (kl - before) / (here - before)
    return points[-1][1] if points else math.nan
