"""The ranking of a sweep's arms: every trial that was started, and every baseline outside the search space.

A trial's value is the one that the study has (the driver told it the mean over the seeds); everything else is read
from the journals. "Better" always means in the objective's own direction.
"""

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from r2m.config import recipes
from r2m.errors import UserError
from r2m.results.alarms import alarms
from r2m.results.answer import LAST, Ranked
from r2m.results.readings import cost, last, mean
from r2m.results.table import Arm, trial_label, trial_name
from r2m.runs.folder import PRUNED
from r2m.runs.journal import JournalView
from r2m.sweeps.objective import value_of, violations
from r2m.sweeps.schema import Sweep
from r2m.sweeps.settings import slug
from r2m.sweeps.spec import overrides_of

BASELINE = "baseline"  # user attribute of a trial that is one: its name
STATES = ("complete", "pruned", "failed", "running", "waiting")
OF_TRIAL = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def label_of(trial: FrozenTrial | optuna.Trial) -> str:
    """The r2m.trial of its runs."""
    return trial_label(trial.number, trial.user_attrs.get(BASELINE))


def run_name(sweep: str, arm: str, seed: int) -> str:
    return f"{sweep}-{arm}-s{seed}"


def on_seeds(rows: Mapping[str, Arm], label: str, seeds: Iterable[int]) -> dict[int, JournalView]:
    """The runs of an arm of the sweep, its r2m.trial, on those of the seeds that it has."""
    return rows[label].on(seeds) if label in rows else {}


def winner(sweep: Sweep, trials: Sequence[FrozenTrial]) -> int | None:
    """The number of the best feasible complete trial; of several objectives, the member of the Pareto front with the
    best first one. The earliest of equals; None where there is none."""
    candidates = sorted(
        (t for t in trials if t.state == TrialState.COMPLETE and _violation(sweep, t) <= 0), key=lambda t: t.number
    )
    losses = [_losses(sweep, t.values) for t in candidates]
    front = [t for t, loss in zip(candidates, losses, strict=True) if not _dominated(loss, losses)]
    return min(front, key=lambda t: _losses(sweep, t.values)[0]).number if front else None


def rank(sweep: Sweep, trials: Sequence[FrozenTrial], rows: Mapping[str, Arm]) -> tuple[list[Ranked], list[str]]:
    """The arms, best first, and the names of those on the Pareto front (none with a single objective).

    Order: the front, other feasible complete arms by the objectives, infeasible ones by violation, pruned ones by how
    far they came, failed, running, waiting. Equals stay in the order of their trials, baselines before them. A point
    that only waits in the study's queue has run nothing yet and is no arm.

    Args:
        rows: the sweep's runs, as table.by_trial gives them.
    """
    inside = {trial.user_attrs.get(BASELINE) for trial in trials}
    arms = [_outside(sweep, label, rows) for label in sweep.baselines if label not in inside]
    started = sorted((t for t in trials if t.state != TrialState.WAITING), key=lambda t: t.number)
    arms += [_of_trial(sweep, trial, rows) for trial in started]
    front = _front(sweep, arms) if len(sweep.objectives) > 1 else []
    return sorted(arms, key=lambda arm: _place(sweep, arm, front)), front


def _of_trial(sweep: Sweep, trial: FrozenTrial, rows: Mapping[str, Arm]) -> Ranked:
    name, known = trial_name(trial.number), {}
    if trial.state == TrialState.COMPLETE:
        known = {"values": tuple(trial.values), "violation": _violation(sweep, trial)}
    return _ranked(
        sweep, name, _settings(sweep, trial), list(on_seeds(rows, label_of(trial), sweep.seeds).values()),
        label=trial.user_attrs.get(BASELINE, name),
        trial=trial.number,
        baseline=BASELINE in trial.user_attrs,
        state=OF_TRIAL.get(trial.state, "running"),
        reason=trial.user_attrs.get("reason"),
        **known,
    )  # fmt: skip


def _outside(sweep: Sweep, label: str, rows: Mapping[str, Arm]) -> Ranked:
    """A baseline outside the search space."""
    seen = list(on_seeds(rows, label, sweep.seeds).values())
    failed = next((view for view in seen if view.status == "failed"), None)
    pruned = next((view for view in seen if view.status == PRUNED), None)
    ended = failed or pruned
    finished = len(seen) == len(sweep.seeds) and all(view.status == "finished" for view in seen)
    return _ranked(
        sweep, slug(label), dict(sweep.baselines[label]), seen,
        label=label,
        trial=None,
        baseline=True,
        state=ended.status if ended else "complete" if finished else "running" if seen else "waiting",
        reason=ended.events[-1].get("reason") if ended else None,
    )  # fmt: skip


def _ranked(sweep: Sweep, name: str, params: dict[str, Any], seen: list[JournalView], **fields: Any) -> Ranked:
    """`fields`: what the journals do not say, and what the study knows better."""
    spent = [cost(view) for view in seen]
    try:
        again = command(sweep, params, sweep.seeds[0])
    except UserError:
        again = None
    read: dict[str, Any] = {key: mean(last(view, metric) for view in seen) for key, metric in LAST.items()}
    read |= {
        "values": tuple(mean(value_of(view, objective) for view in seen) for objective in sweep.objectives),
        "violation": violation_of(sweep, seen),
        "trajectories": sum(trajectories for trajectories, _ in spent),
        "worker_s": sum(seconds for _, seconds in spent),
        "runs": tuple(view.run_id for view in seen),
        "command": again,
        "alarm": alarms(seen),
    }
    return Ranked(name=name, params=params, **read | fields)


def command(sweep: Sweep, params: Mapping[str, Any], seed: int) -> str:
    """What to type to repeat a run of the sweep. Raises UserError where no run can have these settings."""
    sets = [word for override in overrides_of(sweep, params, seed) for word in ("--set", override)]
    recipe = sweep.recipe if sweep.recipe in recipes() else sweep.source
    return shlex.join(["r2m", "train", recipe, *sets])


def _place(sweep: Sweep, arm: Ranked, front: Sequence[str]) -> tuple[Any, ...]:
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


def _front(sweep: Sweep, arms: Sequence[Ranked]) -> list[str]:
    feasible = [arm for arm in arms if arm.state == "complete" and arm.feasible]
    losses = [_losses(sweep, arm.values) for arm in feasible]
    front = [arm for arm, loss in zip(feasible, losses, strict=True) if not _dominated(loss, losses)]
    return [arm.name for arm in sorted(front, key=lambda arm: _losses(sweep, arm.values))]


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


def _settings(sweep: Sweep, trial: FrozenTrial) -> dict[str, Any]:
    """The configuration's keys: of a Python sweep these need not be the names that Optuna knows."""
    try:
        return sweep.suggest(optuna.trial.FixedTrial(trial.params))
    except (UserError, ValueError):  # it failed before all was suggested
        return dict(trial.params)
