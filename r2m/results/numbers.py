"""Numbers and paired differences as people read them, in tables and sentences, and as JSON has them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from r2m.results.statistics import Estimate, Interval

MOST_NAMED = 6  # arms in a sentence

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


def setting_text(value: Any) -> str:
    """A setting's value as people read it."""
    if isinstance(value, bool) or value is None:
        return {True: "on", False: "off", None: "null"}[value]
    if isinstance(value, Mapping):  # a section of its own
        return " ".join(f"{name} {setting_text(of)}" for name, of in value.items())
    if isinstance(value, list):
        return "+".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def finite(tree: Any) -> Any:
    """The tree with None for every number that is not finite: what strict JSON can hold."""
    if isinstance(tree, dict):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def named(labels: Sequence[str]) -> str:
    """Arms by name, or how many they are where names would be too long for a sentence."""
    if len(labels) > MOST_NAMED:
        return f"{len(labels)} arms"
    return ", ".join(f"'{label}'" if "," in label else label for label in labels)


def too_few(these: Sequence[str], those: Sequence[str], metric: str, found: Sequence[Estimate], seed: str) -> str:
    """What is said once of all paired differences that have too few seeds."""
    low, high = (number(f(d.mean for d in found)) for f in (min, max))
    least, most = (f(d.n for d in found) for f in (min, max))
    on = f"one {seed}" if most == 1 else f"{most} {seed}s" if least == most else f"{least} to {most} {seed}s"
    return (
        f"Too few {seed}s to tell {named(these)} from {named(those)}: on {on} each, mean gains in {metric} of {low} "
        f"to {high} say nothing about chance."
    )


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
