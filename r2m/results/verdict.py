"""Is the winner really better? Sentences from the numbers, which claim no more than these do."""

import math
from collections.abc import Sequence

from r2m.metrics import metric
from r2m.results.alarms import raised
from r2m.results.answer import LAST, Answer, Confirmed, Ranked
from r2m.results.numbers import decimals, number, sentence, too_few

FIELDS = {metric(key).label: field for field, key in LAST.items()}  # heading -> of an arm


def verdict(a: Answer) -> tuple[str, ...]:
    """Sentences, the headline first."""
    if not a.search:
        return (_no_search(a), *_running(a))
    if a.winner is None:
        return (_no_winner(a),)
    mine, *others = a.confirmation
    best, metric, lower = a.arm(a.winner), a.objectives[0], a.directions[0] == "minimize"
    head = [f"The search found nothing better than {best.label}, its best trial ({best.name})."] * best.baseline
    few = [c for c in a.comparisons if c.finding == "too few seeds"]
    alone = few if len(few) == 1 else []
    head += [
        sentence(mine.label, c.label, metric, c.difference, "fresh seed", lower)
        for c in a.comparisons
        if c not in few or c in alone
    ]
    if few and not alone:
        found = [c.difference for c in few]
        head.append(too_few([mine.label], [c.label for c in few], metric, found, "fresh seed"))
    if not head:
        head = [f"{best.label} leads the search by {metric}, with no baseline to compare on a fresh seed yet."]
    n, m = sum(arm.state == "complete" and arm.trial is not None for arm in a.ranking), len(mine.values)
    chosen = f", chosen as the best of {n} complete trial{'s' * (n != 1)} and so optimistic" * (not best.baseline)
    fresh = f"on {m} fresh seed{'s' * (m != 1)} its mean {metric} is {number(mine.mean)}"
    confirmed = fresh if m else "no fresh seed has confirmed it yet"
    tail = [f"The search had it at {number(best.values[0])}{chosen}; {confirmed}."]
    if mine.violation > 0:
        kept = " and ".join(a.constraints)
        tail.append(f"On fresh seeds {best.label} does not keep {kept}: it misses by {number(mine.violation)}.")
    return (*head, *tail, *_alarm(a), *_missing(a, mine, others), *_running(a))


def _no_search(a: Answer) -> str:
    done = sum(arm.state == "complete" for arm in a.ranking)
    arms = f"{done} of {len(a.ranking)} arms are complete, on {len(a.seeds)} seed{'s' * (len(a.seeds) > 1)} each"
    return f"No search: {arms}; r2m compare {a.name} compares them."


def _alarm(a: Answer) -> list[str]:
    """On the fresh seeds where one of them has looked for it, else in the search."""
    fresh = [(c.label, c.alarm) for c in a.confirmation]
    if any(alarm for _, alarm in fresh):
        return raised(fresh, " on fresh seeds")
    return raised([(arm.label, arm.alarm) for arm in a.ranking], " of the search")


def _no_winner(a: Answer) -> str:
    complete = [arm for arm in a.ranking if arm.state == "complete" and arm.trial is not None]
    if not any(arm.trial is not None for arm in a.ranking):
        return "No trial has started yet."
    if not complete:
        states = counted([arm.state for arm in a.ranking if arm.trial is not None])
        return f"No trial is complete ({states}): there is nothing to choose from."
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
    so_far = [f"{c.label} {len(c.values)} of {m}" for c in (mine, *others) if len(c.values) + len(c.failed) < m]
    return said + [f"Confirmation so far: {', '.join(so_far)} seeds."] * bool(so_far)


def _running(a: Answer) -> list[str]:
    running = sum(arm.state == "running" for arm in a.ranking)
    return [f"The search is not over: {running} arm{'s' * (running > 1)} still running."] * bool(running)


def fields(a: Answer, of: Ranked | Confirmed) -> list[str]:
    """The columns that `held_out` names, of an arm or of its confirmation."""
    return [decimals(getattr(of, FIELDS[name]), 2 if FIELDS[name] == "kl" else 3) for name in held_out(a)]


def held_out(a: Answer) -> list[str]:
    """Those of FIELDS that some arm has, but for the objectives, which have columns of their own."""
    return [key for key, name in FIELDS.items() if LAST[name] not in a.objectives
            and any(not math.isnan(getattr(arm, name)) for arm in a.ranking)]  # fmt: skip


def counted(states: Sequence[str]) -> str:
    return ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))


def state(a: Answer, arm: Ranked) -> str:
    if arm.state == "complete":
        return ("on the front" if arm.name in a.front else "complete") if arm.feasible else "infeasible"
    return arm.state


def spent(a: Answer) -> str:
    s = a.spent
    runs = ", ".join(f"{n} {status}" for status, n in s.runs.items()) or "none"
    wall = "" if s.wall_hours is None else f", {number(s.wall_hours)} hours by the clock"
    return f"runs: {runs}; {s.trajectories:,} trajectories, {number(s.worker_hours)} worker-hours{wall}"
