"""Is the winner really better? Sentences from the numbers, which claim no more than these do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from r2m.reporting.statistics import Estimate
from r2m.sweeps.ranking import LAST, Arm

if TYPE_CHECKING:
    from r2m.sweeps.answer import Answer, Comparison, Confirmed

FIELDS = {"KL": "kl", "gold": "gold", "frozen": "frozen"}  # heading -> of an arm
FINDINGS = ("better", "worse", "not distinguishable", "too few seeds")
ENOUGH = 5  # seeds: fewer can all agree by chance in more than 2 / 2^5 of cases
MOST_P = 2 / 2**ENOUGH  # the least p that five seeds can show


def finding(difference: Estimate) -> str:
    """One of FINDINGS. Better or worse takes five seeds, an interval off 0 and a sign-flip p of at most 0.0625: the
    interval alone is too narrow for a handful of seeds."""
    if difference.n < ENOUGH:
        return "too few seeds"
    assert difference.interval is not None
    assert difference.p is not None
    low, high = difference.interval
    if low <= 0 <= high or difference.p > MOST_P:
        return "not distinguishable"
    return "better" if low > 0 else "worse"


def verdict(a: Answer) -> tuple[str, ...]:
    """Sentences, the headline first."""
    if a.winner is None:
        return (_no_winner(a),)
    mine, *others = a.confirmation
    best = a.arm(a.winner)
    itself = best.baseline
    head = [f"The search found nothing better than {best.label}, its best trial ({best.name})."] * itself
    for comparison in a.comparisons:
        head.append(_sentence(a, mine, comparison))
    search = (
        f"The search had it at {number(best.values[0])}, chosen as the best of {_complete(a)} and so optimistic"
        if not itself else f"The search had it at {number(best.values[0])}"
    )  # fmt: skip
    if mine.values:
        confirmed = mine.mean
        tail = [f"{search}; on {_seeds(len(mine.values))} its mean {a.objectives[0]} is {number(confirmed)}."]
    else:
        tail = [f"{search}; no fresh seed has confirmed it yet."]
    if not head:
        head = [
            f"{best.label} leads the search by {a.objectives[0]}, with no baseline to compare on a fresh seed yet."
        ]
    if mine.violation > 0:
        kept = " and ".join(a.constraints)
        tail.append(
            f"On fresh seeds {best.label} does not keep {kept}: it misses by {number(mine.violation)}."
        )
    return (*head, *tail, *_missing(a, mine, others), *_running(a))


def _sentence(a: Answer, mine: Confirmed, c: Comparison) -> str:
    d, me, other, metric = c.difference, mine.label, c.label, a.objectives[0]
    gain = f"mean gain in {metric} {number(d.mean)}" + " (lower is better)" * (a.directions[0] == "minimize")
    ahead = "better" if d.mean > 0 else "worse"
    if c.finding == "too few seeds":
        if d.n == 1:
            return f"One fresh seed cannot tell {me} from {other}: {gain} says nothing about chance."
        least = f"differences of {d.n} seeds all have one sign by chance in 1 of {2 ** (d.n - 1)} cases"
        if d.p == 2 / 2**d.n:
            return f"{me} is {ahead} than {other} on each of {_seeds(d.n)} ({gain}), which settles nothing: {least}."
        return f"{me} and {other} are not told apart by {_seeds(d.n)} ({gain}); even at best, {least}."
    assert d.p is not None
    numbers = f"{gain}, {interval(d)}, p = {number(d.p)}, {_seeds(d.n)}"
    if c.finding == "not distinguishable":
        return f"{me} is not distinguishable from {other} ({numbers})."
    return f"{me} is {c.finding} than {other} ({numbers})."


def _no_winner(a: Answer) -> str:
    complete = [arm for arm in a.ranking if arm.state == "complete" and arm.trial is not None]
    if not any(arm.trial is not None for arm in a.ranking):
        return "No trial has started yet."
    if not complete:
        states = [arm.state for arm in a.ranking if arm.trial is not None]
        counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
        return f"No trial is complete ({counts}): there is nothing to choose from."
    nearest = complete[0]
    return (
        f"No trial keeps {' and '.join(a.constraints)}: the nearest is {nearest.label}, which misses by "
        f"{number(nearest.violation)}, with {a.objectives[0]} at {number(nearest.values[0])}."
    )


def _missing(a: Answer, mine: Confirmed, others: list[Confirmed]) -> list[str]:
    """What the confirmation has not, or will not have."""
    failed = [f"{c.label} on seed {', '.join(map(str, c.failed))}" for c in (mine, *others) if c.failed]
    said = [f"Failed, and so in no comparison: {'; '.join(failed)}."] * bool(failed)
    m = len(a.confirm)
    so_far = [
        f"{c.label} {len(c.values)} of {m}" for c in (mine, *others) if len(c.values) + len(c.failed) < m
    ]
    return said + [f"Confirmation so far: {', '.join(so_far)} seeds."] * bool(so_far)


def _running(a: Answer) -> list[str]:
    running = sum(arm.state == "running" for arm in a.ranking)
    return [f"The search is not over: {running} arm{'s' * (running > 1)} still running."] * bool(running)


def _complete(a: Answer) -> str:
    n = sum(arm.state == "complete" and arm.trial is not None for arm in a.ranking)
    return f"{n} complete trial{'s' * (n != 1)}"


def _seeds(n: int) -> str:
    return f"{n} fresh seed{'s' * (n != 1)}"


def interval(d: Estimate) -> str:
    if d.interval is None:
        return "no interval of one"
    return f"95 % interval {number(d.interval[0])} to {number(d.interval[1])}"


def number(value: float) -> str:
    """Three significant digits, a real minus sign, a dash for NaN."""
    return "–" if value != value else f"{value:.3g}".replace("-", "−")


def decimals(value: float, places: int = 3) -> str:
    """For a column: as many decimals as its neighbours, where these say enough."""
    enough = value == 0 or 0.01 <= abs(value) < 1000
    return f"{value:.{places}f}".replace("-", "−") if enough else number(value)


def fields(a: Answer, of: Arm | Confirmed) -> list[str]:
    """What `held_out` names, of an arm or its confirmation."""
    return [decimals(getattr(of, FIELDS[name]), 2 if name == "KL" else 3) for name in held_out(a)]


def held_out(a: Answer) -> list[str]:
    """Those of FIELDS that an arm has and that is no objective as it is."""
    return [key for key, name in FIELDS.items() if LAST[name] not in a.objectives
            and any(not math.isnan(getattr(arm, name)) for arm in a.ranking)]  # fmt: skip


def state(a: Answer, arm: Arm) -> str:
    if arm.state == "complete":
        return ("on the front" if arm.name in a.front else "complete") if arm.feasible else "infeasible"
    return arm.state


def spent(a: Answer) -> str:
    s = a.spent
    runs = ", ".join(f"{n} {status}" for status, n in s.runs.items()) or "none"
    wall = "" if s.wall_hours is None else f", {number(s.wall_hours)} hours by the clock"
    return f"runs: {runs}; {s.trajectories:,} trajectories, {number(s.worker_hours)} worker-hours{wall}"
