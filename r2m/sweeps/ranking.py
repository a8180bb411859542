"""The ranking of a sweep's arms: every trial that was started, and every baseline outside the search space.

A trial's value is the one that the study has (the driver told it the mean over the seeds); everything else is read
from the journals. "Better" always means in the objective's own direction.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from r2m.config import recipes
from r2m.errors import UserError
from r2m.results.readings import cost, last, mean
from r2m.runs.journal import JournalView
from r2m.sweeps.spec import Sweep, overrides_of, slug, value_of, violations

BASELINE = "baseline"  # user attribute of a trial that is one: its name
STATES = ("complete", "pruned", "failed", "running", "waiting")
OF_TRIAL = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
LAST = {"kl": "eval/kl_sequence", "gold": "eval/gold", "frozen": "eval/vanilla"}


@dataclass(frozen=True)
class Arm:
    """A row of the ranking, over the sweep's own seeds. NaN: the runs have no such value."""

    name: str  # t003, or a baseline's slug
    label: str  # a baseline's name, else the name
    trial: int | None  # None: a baseline outside the search space
    baseline: bool
    params: dict[str, Any]
    state: str  # one of STATES
    values: tuple[float, ...]  # an objective each; of a pruned trial those of its last evaluation
    violation: float  # the worst constraint's excess: at most 0 where all are kept
    kl: float  # the last evaluation's, mean over the seeds
    gold: float
    frozen: float
    trajectories: int
    worker_s: float
    runs: tuple[str, ...]
    command: str | None  # repeats its first run; None where no run can have these settings
    reason: str | None  # why it failed

    @property
    def feasible(self) -> bool:
        return self.violation <= 0


def arm_of(number: int) -> str:
    return f"t{number:03d}"


def run_name(sweep: str, arm: str, seed: int) -> str:
    return f"{sweep}-{arm}-s{seed}"


def winner(sweep: Sweep, trials: Sequence[FrozenTrial]) -> int | None:
    """The number of the best feasible complete trial; of several objectives, the member of the Pareto front with the
    best first one. The earliest of equals; None where there is none."""
    candidates = sorted(
        (t for t in trials if t.state == TrialState.COMPLETE and _violation(sweep, t) <= 0),
        key=lambda t: t.number,
    )
    losses = [_losses(sweep, t.values) for t in candidates]
    front = [t for t, loss in zip(candidates, losses, strict=True) if not _dominated(loss, losses)]
    return min(front, key=lambda t: _losses(sweep, t.values)[0]).number if front else None


def rank(
    sweep: Sweep, name: str, trials: Sequence[FrozenTrial], views: Mapping[str, JournalView]
) -> tuple[list[Arm], list[str]]:
    """The arms, best first, and the names of those on the Pareto front (none with a single objective).

    Order: the front, other feasible complete arms by the objectives, infeasible ones by violation, pruned ones by how
    far they came, failed, running, waiting. Equals stay in the order of their trials, baselines before them.
    """
    arms = [*_baselines_outside(sweep, name, trials, views), *_trials(sweep, name, trials, views)]
    front = _front(sweep, arms) if len(sweep.objectives) > 1 else []
    return sorted(arms, key=lambda arm: _place(sweep, arm, front)), front


def _trials(
    sweep: Sweep, name: str, trials: Iterable[FrozenTrial], views: Mapping[str, JournalView]
) -> list[Arm]:
    """Those that were started: a point that only waits in the study's queue has run nothing yet."""
    arms = []
    for trial in sorted(trials, key=lambda t: t.number):
        if trial.state == TrialState.WAITING:
            continue
        arm, seen = arm_of(trial.number), _on_seeds(name, arm_of(trial.number), sweep.seeds, views)
        complete = trial.state == TrialState.COMPLETE
        arms.append(
            _arm(
                sweep, arm, trial.user_attrs.get(BASELINE, arm), _settings(sweep, trial), seen,
                trial=trial.number,
                baseline=BASELINE in trial.user_attrs,
                state=OF_TRIAL.get(trial.state, "running"),
                values=tuple(trial.values) if complete else _means(sweep, seen),
                violation=_violation(sweep, trial) if complete else violation_of(sweep, seen),
                reason=trial.user_attrs.get("reason"),
            )
        )  # fmt: skip
    return arms


def _baselines_outside(
    sweep: Sweep, name: str, trials: Iterable[FrozenTrial], views: Mapping[str, JournalView]
) -> list[Arm]:
    inside = {trial.user_attrs.get(BASELINE) for trial in trials}
    arms = []
    for label, params in sweep.baselines.items():
        if label in inside:
            continue
        seen = _on_seeds(name, slug(label), sweep.seeds, views)
        failed = next((view for view in seen if view.status == "failed"), None)
        finished = len(seen) == len(sweep.seeds) and all(view.status == "finished" for view in seen)
        state = "failed" if failed else "complete" if finished else "running" if seen else "waiting"
        arms.append(
            _arm(
                sweep, slug(label), label, dict(params), seen,
                trial=None,
                baseline=True,
                state=state,
                values=_means(sweep, seen),
                violation=violation_of(sweep, seen),
                reason=failed.events[-1].get("reason") if failed else None,
            )
        )  # fmt: skip
    return arms


def _arm(
    sweep: Sweep, name: str, label: str, params: dict[str, Any], seen: list[JournalView], **fields: Any
) -> Arm:
    spent = [cost(view) for view in seen]
    try:
        again = command(sweep, params, sweep.seeds[0])
    except UserError:
        again = None
    fields |= {key: mean(last(view, metric) for view in seen) for key, metric in LAST.items()}
    return Arm(
        name=name,
        label=label,
        params=params,
        trajectories=sum(trajectories for trajectories, _ in spent),
        worker_s=sum(seconds for _, seconds in spent),
        runs=tuple(view.run_id for view in seen),
        command=again,
        **fields,
    )


def command(sweep: Sweep, params: Mapping[str, Any], seed: int) -> str:
    """What to type to repeat a run of the sweep. Raises UserError where no run can have these settings."""
    sets = [word for override in overrides_of(sweep, params, seed) for word in ("--set", override)]
    recipe = sweep.recipe if sweep.recipe in recipes() else sweep.source
    return shlex.join(["r2m", "train", recipe, *sets])


def _place(sweep: Sweep, arm: Arm, front: Sequence[str]) -> tuple[Any, ...]:
    """The sort key of `rank`'s order."""
    losses = _losses(sweep, arm.values)
    complete = arm.state == "complete"
    return (
        0 if complete and arm.feasible else 1 + STATES.index(arm.state),
        arm.name not in front,
        -arm.trajectories if arm.state == "pruned" else 0,
        arm.violation if complete and not arm.feasible else 0,
        losses,
        arm.trial if arm.trial is not None else -1,
    )


def _front(sweep: Sweep, arms: Sequence[Arm]) -> list[str]:
    feasible = [arm for arm in arms if arm.state == "complete" and arm.feasible]
    losses = [_losses(sweep, arm.values) for arm in feasible]
    front = [arm for arm, loss in zip(feasible, losses, strict=True) if not _dominated(loss, losses)]
    return [arm.name for arm in sorted(front, key=lambda arm: _losses(sweep, arm.values))]


def _on_seeds(
    name: str, arm: str, seeds: Iterable[int], views: Mapping[str, JournalView]
) -> list[JournalView]:
    names = [run_name(name, arm, seed) for seed in seeds]
    return [views[run] for run in names if run in views]


def _dominated(loss: Sequence[float], others: Iterable[Sequence[float]]) -> bool:
    """Whether another is at least as good in all objectives and better in one."""
    return any(all(o <= v for o, v in zip(other, loss, strict=True)) and other != loss for other in others)


def _losses(sweep: Sweep, values: Sequence[float]) -> tuple[float, ...]:
    """The values as what is to be minimised; NaN, which is no value, is worst."""
    signs = [-1 if o.direction == "maximize" else 1 for o in sweep.objectives]
    return tuple(math.inf if math.isnan(v) else s * v for s, v in zip(signs, values, strict=True))


def _violation(sweep: Sweep, trial: FrozenTrial) -> float:
    """The worst of what the driver told the study; a trial without constraint values is not known to keep them."""
    if not sweep.constraints:
        return 0.0
    return max(trial.constraints.values(), default=math.inf)


def violation_of(sweep: Sweep, seen: Sequence[JournalView]) -> float:
    """The worst constraint's excess, mean over the runs; infinite where a run has no value of it."""
    if not sweep.constraints:
        return 0.0
    excess = [mean(column) for column in zip(*(violations(v, sweep.constraints) for v in seen), strict=True)]
    return max((math.inf if math.isnan(e) else e for e in excess), default=math.inf)


def _means(sweep: Sweep, seen: Sequence[JournalView]) -> tuple[float, ...]:
    return tuple(mean(value_of(view, objective) for view in seen) for objective in sweep.objectives)


def _settings(sweep: Sweep, trial: FrozenTrial) -> dict[str, Any]:
    """The configuration's keys: of a Python sweep these need not be the names that Optuna knows."""
    try:
        return sweep.suggest(optuna.trial.FixedTrial(trial.params))
    except (UserError, ValueError):  # it failed before all was suggested
        return dict(trial.params)
