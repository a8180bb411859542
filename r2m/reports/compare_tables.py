"""The numbers of a comparison, for its page and for a terminal: an arm's means, and its paired differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from r2m.metrics import metric
from r2m.reports.document import Cell, Line, Table
from r2m.reports.style import Group
from r2m.results.comparison import COLUMNS, SECONDS, Comparison, Difference, Row
from r2m.results.comparison_text import word
from r2m.results.numbers import decimals, estimate_cells
from r2m.results.readings import KL
from r2m.results.statistics import Estimate
from r2m.results.table import Arm

PLACES = {KL: 2, "eval/response_tokens": 2, SECONDS: 1}  # decimals: 3 of the others


def means(c: Comparison, groups: Sequence[Group]) -> Table:
    """Each arm, its runs, and its means with their intervals below."""
    shown = [key for key in (*COLUMNS, SECONDS) if any(key in row.values for row in c.rows)]
    gain = [c.metric] if c.metric and any(c.metric in row.gain for row in c.rows) else []
    head = ["arm", "runs", *map(name, shown), *(f"change of\n{name(key)}" for key in gain)]
    rows = [
        ("dim" if row.so_far else "", [
            label(row.arm.label, groups),
            Cell(runs_said(row), f"seed{'s' * (len(row.arm.runs) > 1)} {seeds(row.arm)}"),
            *(estimate(key, row.values.get(key)) for key in shown),
            *(estimate(key, row.gain.get(key)) for key in gain),
        ])
        for row in c.rows
    ]  # fmt: skip
    return Table(head, rows, {0, 1})


def differences(c: Comparison, groups: Sequence[Group]) -> Table:
    head = [f"against {c.baseline}", "what", "pairs", "mean difference", "95 % interval", "p", "finding", "its KL",
            "baseline's KL"]  # fmt: skip
    rows: list[Line] = []
    for row in c.rows:
        mine = [d for d in c.differences if d.arm == row.arm.label]
        for i, d in enumerate(mine):
            arm = "" if i else label(d.arm, groups)
            kl = [decimals(value, 2) for value in d.kl]
            finding = Cell(word(d.metric, d.finding), kind=d.finding)
            rows.append(("" if d is mine[-1] else "more", [arm, *difference(d), finding, *kl]))
    return Table(head, rows, {0, 1, 6})


def difference(d: Difference) -> list[str]:
    """What it is of, its pairs, mean, interval and p."""
    what = f"{name(d.metric)} at {'same KL' if d.matched else 'end'}"
    return [what, str(d.estimate.n), *estimate_cells(d.estimate)]


def name(key: str) -> str:
    """A column's heading."""
    return "worker s" if key == SECONDS else "KL, nats" if key == KL else metric(key).label


def label(text: str, groups: Sequence[Group]) -> Cell:
    """An arm's, with the colour that its lines have."""
    for group in groups:
        if group.label == text:
            return Cell(text, kind="label", colour=group.colour, ring=group.dash != "solid")
    return Cell(text, kind="label")


def estimate(key: str, e: Estimate | None, fewer: int = 0) -> Cell:
    """Mean and interval with the decimals of their column. `fewer`: decimals than usual."""
    if e is None:
        return Cell("–")
    places = PLACES.get(key, 3) - fewer
    mean, *ends = (f"{round(x, places) + 0.0:,.{places}f}".replace("-", "−") for x in (e.mean, *(e.interval or ())))
    return Cell(mean, " to ".join(ends))


def runs_said(row: Row) -> str:
    """How many runs, and how far those have come that have not finished."""
    counts = Counter(view.status for view in row.arm.runs)
    return ", ".join(
        f"{n} {state}" + (f" at {_rounds(row.arm, state)}" if state != "finished" else "")
        for state, n in sorted(counts.items())
    )


def seeds(arm: Arm) -> str:
    return ", ".join(map(str, arm.results))


def _rounds(arm: Arm, state: str) -> str:
    rounds = [len(view.rounds) for view in arm.runs if view.status == state]
    low, high = min(rounds), max(rounds)
    return f"round {low}" if low == high else f"rounds {low} to {high}"
