"""A setup's arms in numbers: means over seeds, and paired differences from a baseline on the seeds that both have.

Only finished runs count where an arm has any: an arm that has none is shown as far as it has come, and is in no
difference.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from r2m.errors import UserError
from r2m.results.alarms import Alarms, alarms
from r2m.results.arms import Setup, setups
from r2m.results.readings import KL, Point, at_kl, cost, last, mean, trajectory
from r2m.results.statistics import Estimate, mean_estimate, paired_difference
from r2m.results.table import Arm, Result, paired
from r2m.runs.journal import JournalView

JUDGED = ("eval/gold", "eval/win_rate", "eval/vanilla")  # what can judge an arm; not asked: the first there is
COLUMNS = (*JUDGED, KL, "eval/response_tokens")
SECONDS = "worker_s"


@dataclass(frozen=True)
class ArmRow:
    """`values`: metric -> its last value over the seeds, of those of COLUMNS that a run has; and the cost of a run.

    `gain`: metric -> its last value less its first, of the judged metric and the vanilla reward.
    """

    arm: Arm
    so_far: bool  # no run has finished
    values: dict[str, Estimate]
    gain: dict[str, Estimate]
    alarm: Alarms | None = None  # of all its runs

    @property
    def status(self) -> str:
        """How many runs, and how far those have come that have not finished."""
        rounds: dict[str, list[int]] = {}
        for view in self.arm.runs:
            rounds.setdefault(view.status, []).append(len(view.rounds))
        return ", ".join(
            f"{len(of)} {status}" + (f" at {_rounds(min(of), max(of))}" if status != "finished" else "")
            for status, of in sorted(rounds.items())
        )


@dataclass(frozen=True)
class Difference:
    """An arm less the baseline, of the metric at the end or at matched KL."""

    arm: str
    metric: str
    matched: bool
    estimate: Estimate
    seeds: tuple[int, ...]
    kl: tuple[float, float]  # nats per sequence, mean over the pairs: the arm's and the baseline's


@dataclass(frozen=True)
class Comparison:
    """`rows`: the baseline's first, then by the judged metric, best first. `metric` is None where no run has one."""

    setup: str
    metric: str | None
    baseline: str
    rows: tuple[ArmRow, ...]
    differences: tuple[Difference, ...]


def compare_runs(
    results: Sequence[Result], metric: str | None = None, baseline: str | None = None
) -> tuple[list[Comparison], list[str]]:
    """A comparison for each setup among the runs, and sentences on what to mind.

    Raises UserError as `compare`; a baseline has to be in one of the setups, and the others have their own.
    """
    found, repeated = setups(results)
    arms = [arm for setup in found for arm in setup.arms]
    if baseline is not None and not any(baseline in (arm.label, arm.kind) for arm in arms):
        labels = dict.fromkeys(arm.label for arm in arms)
        raise UserError(f"--baseline {baseline!r}: {', '.join(map(repr, labels))} are allowed")
    notes = []
    if len(found) > 1:
        notes.append(
            f"These runs are of {len(found)} setups that differ in task, data, models or evaluation. Their numbers "
            "measure different things: they are compared within a setup only."
        )
    if repeated:
        notes.append(f"Left out, since another run has the same settings and seed: {', '.join(repeated)}.")
    searched = sum(result.view.tags.get("r2m.role") == "search" for result in results)
    if searched:
        notes.append(
            f"{searched} of the runs are a search's own: an arm that was chosen for its value in them is optimistic."
        )
    return [compare(setup, metric, baseline) for setup in found], notes


def compare(setup: Setup, metric: str | None = None, baseline: str | None = None) -> Comparison:
    """The comparison as it stands.

    Args:
        metric: one of JUDGED.
        baseline: an arm's label or kind. None, or not in the setup: RLOO if it is there, else the first.

    Raises UserError for a metric that is none of these.
    """
    if metric is not None and metric not in JUDGED:
        raise UserError(f"--metric {metric!r}: {', '.join(JUDGED)} are allowed")
    named = [arm for arm in setup.arms if baseline in (arm.label, arm.kind)]
    base = next(iter([*named, *(arm for arm in setup.arms if arm.kind == "RLOO"), *setup.arms]))
    rows = [_row(arm) for arm in setup.arms]
    metric = metric or next((key for key in JUDGED if any(key in row.values for row in rows)), None)
    rows.sort(key=lambda row: (row.arm is not base, -_judged(row, metric)))
    differences = []
    if metric is not None:
        asked = dict.fromkeys([(metric, False), (metric, True), ("eval/vanilla", True)])
        found = (_difference(row.arm, base, *what) for row in rows[1:] for what in asked)
        differences = [difference for difference in found if difference is not None]
    return Comparison(setup.label, metric, base.label, tuple(rows), tuple(differences))


def matched(a: Sequence[Point], b: Sequence[Point]) -> tuple[float, float, float] | None:
    """The largest held-out KL that both runs reach, and the value of each where it first reaches it. None where one
    was first evaluated beyond it.

    Args:
        a, b: the points of their trajectories.
    """
    a, b = ([point for point in points if all(map(math.isfinite, point))] for points in (a, b))
    if not a or not b:
        return None
    kl = min(max(kl for kl, _ in points) for points in (a, b))
    if kl < max(a[0][0], b[0][0]):
        return None
    return kl, at_kl(a, kl), at_kl(b, kl)


def _rounds(low: int, high: int) -> str:
    return f"round {low}" if low == high else f"rounds {low} to {high}"


def _row(arm: Arm) -> ArmRow:
    views = list(arm.finished.values()) or arm.runs
    values = {key: e for key in COLUMNS if (e := _estimate([last(view, key) for view in views]))}
    if spent := _estimate([cost(view)[1] for view in views]):
        values[SECONDS] = spent
    gain = {key: e for key in JUDGED if (e := _estimate([_gain(view, key) for view in views], paired=True))}
    return ArmRow(arm, not arm.finished, values, gain, alarms(arm.runs))


def _estimate(values: Sequence[float], paired: bool = False) -> Estimate | None:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    return paired_difference(finite, [0.0] * len(finite)) if paired else mean_estimate(finite)


def _gain(view: JournalView, metric: str) -> float:
    values = view.series(metric)[1]
    return values[-1] - values[0] if len(values) > 1 else math.nan


def _judged(row: ArmRow, metric: str | None) -> float:
    return row.values[metric].mean if metric in row.values else -math.inf


def _difference(arm: Arm, base: Arm, metric: str, at_matched_kl: bool) -> Difference | None:
    """On the seeds on which both have finished."""
    pairs = {}  # seed -> KL and value of both
    for seed in (theirs := base.finished).keys() & arm.finished.keys():
        a, b = arm.finished[seed], theirs[seed]
        if not at_matched_kl:
            pairs[seed] = (last(a, KL), last(b, KL), last(a, metric), last(b, metric))
        elif found := matched(*(list(trajectory(view, metric).values()) for view in (a, b))):
            pairs[seed] = (found[0], *found)
    mine, others = ({s: p[i] for s, p in sorted(pairs.items()) if math.isfinite(p[i])} for i in (2, 3))
    if (d := paired(mine, others)) is None:
        return None
    kl, others_kl = (mean(pairs[seed][i] for seed in d.seeds) for i in (0, 1))
    return Difference(arm.label, metric, at_matched_kl, d.estimate, d.seeds, (kl, others_kl))
