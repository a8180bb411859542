"""Numbers as people read them, in tables and sentences, and as JSON has them."""

from __future__ import annotations

import math
from typing import Any

from r2m.results.statistics import Estimate, Interval


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
