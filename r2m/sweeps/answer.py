"""What a sweep has found, from its study and its runs' journals: pure, at any time, nothing is stored."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from optuna.trial import FrozenTrial

from r2m.results.alarms import alarms
from r2m.results.answer import LAST, Against, Answer, Confirmed, Ranked, Spent
from r2m.results.importance import importance
from r2m.results.readings import KL, cost, last, mean
from r2m.results.table import Arm, Result, by_trial, paired, trial_name, values
from r2m.results.verdict import verdict
from r2m.runs.journal import JournalView
from r2m.sweeps.objective import Constraint, Objective, value_of
from r2m.sweeps.ranking import on_seeds, rank, violation_of, winner
from r2m.sweeps.schema import Sweep


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
    rows = by_trial(map(Result, views.values()))
    arms, front = rank(sweep, trials, rows)
    best = winner(sweep, trials)
    best_arm = None if best is None else trial_name(best)
    to_confirm = [arm for arm in arms if arm.baseline or arm.name == best_arm]
    to_confirm.sort(key=lambda arm: arm.name != best_arm)
    confirmation = [_confirmed(sweep, arm, rows) for arm in to_confirm]
    comparisons = []
    if best_arm is not None:
        mine, *others = confirmation
        comparisons = [against for other in others if (against := _against(sweep, mine, other, views))]
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


def _confirmed(sweep: Sweep, arm: Ranked, rows: Mapping[str, Arm]) -> Confirmed:
    by_seed = on_seeds(rows, arm.tag, sweep.confirm)
    finished = {seed: view for seed, view in by_seed.items() if view.status == "finished"}
    valued = values(finished, lambda view: value_of(view, sweep.objectives[0]))
    lost = finished.keys() - valued.keys()
    return Confirmed(
        arm.name,
        arm.label,
        valued,
        **{key: mean(last(view, metric) for view in finished.values()) for key, metric in LAST.items()},
        violation=violation_of(sweep, list(finished.values())) if finished else 0.0,
        failed=tuple(seed for seed, view in by_seed.items() if view.status == "failed" or seed in lost),
        runs={seed: view.run_id for seed, view in by_seed.items()},
        alarm=alarms(list(by_seed.values())),
    )


def _against(sweep: Sweep, mine: Confirmed, other: Confirmed, views: Mapping[str, JournalView]) -> Against | None:
    """None where they share no seed."""
    more = sweep.objectives[0].direction == "maximize"
    found = paired(mine.values, other.values) if more else paired(other.values, mine.values)
    if found is None:
        return None
    kl, others_kl = (mean(last(views[c.runs[seed]], KL) for seed in found.seeds) for c in (mine, other))
    return Against(other.arm, other.label, found.estimate, (kl, others_kl), found.estimate.finding)


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
