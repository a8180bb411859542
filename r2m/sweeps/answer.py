"""What a sweep has found, from its study and its runs' journals: pure, at any time, nothing is stored."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from optuna.trial import FrozenTrial

from r2m.results.numbers import finite
from r2m.results.statistics import Estimate, paired_difference
from r2m.runs.journal import JournalView
from r2m.sweeps.importance import importance
from r2m.sweeps.ranking import LAST, Arm, cost, last, mean, rank, violation_of
from r2m.sweeps.ranking import arm_of as arm_of
from r2m.sweeps.ranking import run_name as run_name
from r2m.sweeps.ranking import winner as winner
from r2m.sweeps.spec import Constraint, Objective, Sweep, value_of
from r2m.sweeps.verdict import finding, verdict


@dataclass(frozen=True)
class Confirmed:
    """An arm on fresh seeds, its finished runs only. `values`: seed -> the first objective.

    `violation` is as an arm's; 0 where no run has finished: nothing is known to be broken. `failed`: the seeds that
    will never have a value, since their run failed or its objective is not finite.
    """

    arm: str
    label: str
    values: dict[int, float]
    kl: float
    gold: float
    frozen: float
    violation: float
    failed: tuple[int, ...]

    @property
    def mean(self) -> float:
        return mean(self.values.values())


@dataclass(frozen=True)
class Comparison:
    """Winner against a baseline on the seeds that both have. `difference` is positive where the winner is better."""

    arm: str  # the baseline's
    label: str
    difference: Estimate
    kl: tuple[float, float]  # the winner's and the baseline's on those seeds
    finding: str  # one of verdict.FINDINGS


@dataclass(frozen=True)
class Spent:
    runs: dict[str, int]  # status -> number of runs, confirmation included
    trajectories: int
    worker_hours: float
    wall_hours: float | None


@dataclass(frozen=True)
class Answer:
    name: str
    objectives: tuple[str, ...]  # the metrics, with the KL at which they are taken if they are
    directions: tuple[str, ...]
    constraints: tuple[str, ...]
    search: bool  # False: the sweep runs its baselines and nothing else
    seeds: tuple[int, ...]
    confirm: tuple[int, ...]
    ranking: tuple[Arm, ...]
    front: tuple[str, ...]  # arms on the Pareto front, best first objective first; () with a single objective
    winner: str | None  # an arm
    confirmation: tuple[Confirmed, ...]  # the winner's first
    comparisons: tuple[Comparison, ...]
    verdict: tuple[str, ...]  # sentences; the first is the headline
    importance: dict[str, float]
    importance_note: str | None  # why there is none, or what to mind
    spent: Spent

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.ranking if arm.name == name)

    def to_json(self) -> dict[str, Any]:
        """A tree for json.dumps(allow_nan=False): a number that is not finite is null."""
        tree = asdict(self)
        for row, arm in zip(tree["ranking"], self.ranking, strict=True):
            row["feasible"] = arm.feasible
        return finite(tree)


def answer(
    sweep: Sweep,
    name: str,
    trials: Sequence[FrozenTrial],
    views: Mapping[str, JournalView],
    wall_s: float | None = None,
) -> Answer:
    """The answer as it stands.

    Args:
        name: the sweep's.
        views: the journals of all runs of the sweep that there are, by the run's name.
        wall_s: seconds that the sweep has taken, if known.
    """
    arms, front = rank(sweep, name, trials, views)
    best = winner(sweep, trials)
    best_arm = None if best is None else arm_of(best)
    to_confirm = [arm for arm in arms if arm.baseline or arm.name == best_arm]
    to_confirm.sort(key=lambda arm: arm.name != best_arm)
    confirmation = [_confirmed(sweep, name, arm, views) for arm in to_confirm]
    comparisons = []
    if best_arm is not None:
        mine, *others = confirmation
        comparisons = [_comparison(sweep, name, mine, other, views) for other in others
                       if mine.values.keys() & other.values.keys()]  # fmt: skip
    shares, note = importance(trials, sweep.objectives[0].direction)
    known = Answer(
        name=name,
        objectives=tuple(map(_objective_text, sweep.objectives)),
        directions=tuple(o.direction for o in sweep.objectives),
        constraints=tuple(map(_constraint_text, sweep.constraints)),
        search=sweep.budget.trials > 0,
        seeds=tuple(sweep.seeds),
        confirm=tuple(sweep.confirm),
        ranking=tuple(arms),
        front=tuple(front),
        winner=best_arm,
        confirmation=tuple(confirmation),
        comparisons=tuple(comparisons),
        verdict=(),
        importance=shares,
        importance_note=note,
        spent=_spent(views, wall_s),
    )
    return replace(known, verdict=verdict(known))


def _confirmed(sweep: Sweep, name: str, arm: Arm, views: Mapping[str, JournalView]) -> Confirmed:
    by_seed = {seed: views[run] for seed in sweep.confirm if (run := run_name(name, arm.name, seed)) in views}
    finished = {seed: view for seed, view in by_seed.items() if view.status == "finished"}
    values = {seed: value_of(view, sweep.objectives[0]) for seed, view in finished.items()}
    valued = {seed: value for seed, value in values.items() if math.isfinite(value)}
    worthless = values.keys() - valued.keys()
    failed = tuple(seed for seed, view in by_seed.items() if view.status == "failed" or seed in worthless)
    means = {key: mean(last(view, metric) for view in finished.values()) for key, metric in LAST.items()}
    violation = violation_of(sweep, list(finished.values())) if finished else 0.0
    return Confirmed(arm.name, arm.label, valued, violation=violation, failed=failed, **means)


def _comparison(
    sweep: Sweep, name: str, mine: Confirmed, other: Confirmed, views: Mapping[str, JournalView]
) -> Comparison:
    seeds = [seed for seed in sweep.confirm if seed in mine.values and seed in other.values]
    a, b = ([c.values[seed] for seed in seeds] for c in (mine, other))
    more = sweep.objectives[0].direction == "maximize"
    difference = paired_difference(a, b) if more else paired_difference(b, a)
    kl = [mean(last(views[run_name(name, c.arm, s)], LAST["kl"]) for s in seeds) for c in (mine, other)]
    return Comparison(other.arm, other.label, difference, (kl[0], kl[1]), finding(difference))


def _spent(views: Mapping[str, JournalView], wall_s: float | None) -> Spent:
    costs = [cost(view) for view in views.values()]
    return Spent(
        dict(sorted(Counter(view.status for view in views.values()).items())),
        sum(trajectories for trajectories, _ in costs),
        sum(seconds for _, seconds in costs) / 3600,
        None if wall_s is None else wall_s / 3600,
    )


def _objective_text(objective: Objective) -> str:
    at = "" if objective.matched_kl is None else f" at KL {objective.matched_kl:g}"
    return objective.metric + at


def _constraint_text(constraint: Constraint) -> str:
    low = "" if constraint.min is None else f"{constraint.min:g} ≤ "
    high = "" if constraint.max is None else f" ≤ {constraint.max:g}"
    return low + constraint.metric + high
