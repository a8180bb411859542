"""What a journal says of its run: its last value of a metric, its cost, its trajectory over KL, its value at a KL."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from r2m.runs.journal import JournalView

KL, TRAINING_KL = "eval/kl_sequence", "kl/sequence"  # nats per sequence

Point = tuple[float, float]  # KL, a metric


def mean(values: Iterable[float]) -> float:
    """NaN where there are no values, or one is NaN."""
    values = list(values)
    return fmean(values) if values else math.nan


def last(view: JournalView, metric: str) -> float:
    """NaN where the run has none."""
    return (view.series(metric)[1] or [math.nan])[-1]


def up_to(view: JournalView, metric: str, step: int) -> tuple[int, float] | None:
    """The last step up to this one that has the metric, and its value."""
    return next(((s, value) for s, value in reversed([*zip(*view.series(metric), strict=True)]) if s <= step), None)


def cost(view: JournalView) -> tuple[int, float]:
    """Trajectories sampled for training, and worker-seconds of rounds and evaluations."""
    seconds = sum(m.get("time/round_s", 0.0) + m.get("time/eval_s", 0.0) for m in view.rounds.values())
    workers = view.start["config"]["run"]["workers"]
    return len(view.rounds) * trajectories_a_round(view), seconds * workers


def trajectories_a_round(view: JournalView) -> int:
    """n K, of all workers."""
    a = view.start["config"]["algorithm"]
    return a["queries"] * a["responses"]


def trajectory(view: JournalView, metric: str) -> dict[int, Point]:
    """Step -> (KL, the metric), of the rounds that have both: a held-out metric's with the held-out KL, a training
    metric's with the round's own."""
    kl = KL if metric.startswith("eval/") else TRAINING_KL
    return {step: (m[kl], m[metric]) for step, m in view.rounds.items() if kl in m and metric in m}


def mean_curve(curves: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """The mean of runs' curves (step -> value) at the steps that all of them have; {} where there are none."""
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    return {step: fmean(curve[step] for curve in curves) for step in steps}


def at_kl(points: Sequence[Point], kl: float) -> float:
    """The value where a run's held-out KL first reaches `kl` nats, interpolated linearly between the evaluations
    before and after: the first evaluation's if that is beyond it, the last one's if none is. NaN of no evaluation.

    Args:
        points: those of a trajectory.
    """
    for i, (here, value) in enumerate(points):
        if here >= kl:
            if i == 0:
                return value
            before, value_before = points[i - 1]
            return value_before + (value - value_before) * (kl - before) / (here - before)
    return points[-1][1] if points else math.nan
