"""Numbers and paired differences as people read them, in tables and sentences, and as JSON has them."""

import math
from typing import Any

from r2m.results.statistics import Estimate, Interval

METHOD = (
    "Interval: percentile bootstrap of 10,000 resamples, too narrow for a handful of seeds. p: sign-flip test, "
    "two-sided. A finding takes both, and at least five seeds."
)


def number(value: float) -> str:
    """Three significant digits, a real minus sign, a dash for NaN."""
    return "–" if value != value else f"{value:.3g}".replace("-", "−")


def decimals(value: float, places: int = 3) -> str:
    """For a column: as many decimals as its neighbours, where these say enough."""
    enough = value == 0 or 0.01 <= abs(value) < 1000
    return f"{value:.{places}f}".replace("-", "−") if enough else number(value)


def low_high(interval: Interval | None, places: int = 3) -> str:
    """For a column; a dash for none."""
    return "–" if interval is None else " to ".join(decimals(end, places) for end in interval)


def estimate_cells(e: Estimate) -> list[str]:
    """Mean, interval and p, for three columns."""
    return [decimals(e.mean), low_high(e.interval), number(math.nan if e.p is None else e.p)]


def interval(e: Estimate) -> str:
    """For a sentence."""
    if e.interval is None:
        return "no interval of one"
    return f"95 % interval {number(e.interval[0])} to {number(e.interval[1])}"


def finite(tree: Any) -> Any:
    """The tree with None for every number that is not finite: what strict JSON can hold."""
    if isinstance(tree, dict):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def sentence(me: str, other: str, metric: str, d: Estimate, seed: str = "seed", lower: bool = False) -> str:
    """What the paired difference says.

    Args:
        d: positive where `me` is better.
        seed: what a pair is of: "fresh seed", "seed".
        lower: whether less of the metric is better.
    """
    found = d.finding
    gain = f"mean gain in {metric} {number(d.mean)}" + " (lower is better)" * lower
    ahead = "better" if d.mean > 0 else "worse"
    if found == "too few seeds":
        if d.n == 1:
            return f"One {seed} cannot tell {me} from {other}: {gain} says nothing about chance."
        least = f"differences of {d.n} seeds all have one sign by chance in 1 of {2 ** (d.n - 1)} cases"
        if d.p == 2 / 2**d.n:
            return f"{me} is {ahead} than {other} on each of {d.n} {seed}s ({gain}), which settles nothing: {least}."
        return f"{me} and {other} are not told apart by {d.n} {seed}s ({gain}); even at best, {least}."
    assert d.p is not None
    numbers = f"{gain}, {interval(d)}, p = {number(d.p)}, {d.n} {seed}s"
    if found == "not distinguishable":
        return f"{me} is not distinguishable from {other} ({numbers})."
    return f"{me} is {found} than {other} ({numbers})."
