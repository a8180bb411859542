"""Is one arm really better than another? A word and a sentence that claim no more than the numbers do."""

from __future__ import annotations

from r2m.results.numbers import interval, number
from r2m.results.statistics import Estimate

METHOD = (
    "Interval: percentile bootstrap of 10,000 resamples, too narrow for a handful of seeds. p: sign-flip test, "
    "two-sided. A finding takes both, and at least five seeds."
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
