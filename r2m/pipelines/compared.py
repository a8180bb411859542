"""A comparison as `r2m compare --json` writes it, read with care: what is missing, or is no number, is None."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from r2m.results.numbers import named
from r2m.results.statistics import Estimate

Tree = Mapping[str, Any]


def arm_in(comparison: Tree, arm: str, over: str | None) -> tuple[Tree | None, Tree | None, str]:
    """The setup that has the arm (of several the one with `over`, too) and the arm in it, or why there is none."""
    setups = comparison.get("setups") or ()
    there = [setup for setup in setups if named_arm(setup, arm) is not None]
    if over is not None and len(there) > 1:
        there = [setup for setup in there if named_arm(setup, over) is not None]
    if len(there) == 1:
        return there[0], named_arm(there[0], arm), ""
    if there:
        return None, None, f"{arm} is in {len(there)} setups of the comparison, which measure different things"
    labels = named([of.get("arm", "") for setup in setups for of in setup.get("arms", ())])
    return None, None, f"The comparison has no one arm {arm}; it has {labels or 'none'}"


def named_arm(setup: Tree, name: str | None) -> Tree | None:
    """The one arm of that label; else the one whose runs are called so by their sweeps; else the one of that kind."""
    arms = setup.get("arms") or ()
    for called in (_label, _trial, _kind):
        if name is not None and (found := [of for of in arms if called(of) == name]):
            return found[0] if len(found) == 1 else None
    return None


def _label(of: Tree) -> str | None:
    return of.get("arm")


def _trial(of: Tree) -> str | None:
    trials = {run.get("trial") for run in of.get("each") or ()}
    return trials.pop() if len(trials) == 1 else None


def _kind(of: Tree) -> str | None:
    return of.get("kind")


def finished_in(mine: Tree) -> list[Tree]:
    return [of for of in mine.get("each") or () if of.get("status") == "finished"]


def median_run(setup: Tree, mine: Tree) -> str | None:
    """Of an arm's finished runs the one with the median of the judged metric, the lower one of two; None of none."""
    values = [(last_of(of, setup.get("metric")), of["seed"], of["run"]) for of in finished_in(mine)]
    scored = sorted(found for found in values if found[0] is not None)
    return scored[(len(scored) - 1) // 2][2] if scored else None


def last_of(of: Tree, metric: str | None) -> float | None:
    """A run's last."""
    return finite_number((of.get("values") or {}).get(metric))


def estimate_of(tree: Any) -> Estimate | None:
    """None where a number of it is missing that its n says there is."""
    if not isinstance(tree, Mapping) or not isinstance(tree.get("n"), int) or tree["n"] < 1:
        return None
    mean, p, ends = finite_number(tree.get("mean")), finite_number(tree.get("p")), tree.get("interval")
    known = [finite_number(end) for end in ends or ()]
    if mean is None or None in known or (tree["n"] > 1 and (len(known) != 2 or p is None)):
        return None
    return Estimate(mean, (known[0], known[1]) if len(known) == 2 else None, tree["n"], p)  # type: ignore[arg-type]


def finite_number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None
