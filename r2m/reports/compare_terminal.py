"""`r2m compare` in a terminal of 80 columns, and its numbers as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from r2m.reports.compare_tables import difference, estimate, name, runs_said, seeds
from r2m.reports.document import Cell, Table
from r2m.reports.table import rich_table
from r2m.results.comparison import COLUMNS, SECONDS, Comparison
from r2m.results.comparison_text import sentences, word
from r2m.results.numbers import finite

if TYPE_CHECKING:
    from rich.console import Group

_TOP = 12  # arms shown
IN_TABLE = [key for key in (*COLUMNS, SECONDS) if key != "eval/response_tokens"]  # what 80 columns have room for


def terminal(c: Comparison) -> Group:
    """To be printed by a rich console."""
    from rich.console import Group
    from rich.text import Text

    headline, *rest = sentences(c)
    means = _means(c)
    parts: list[Any] = [Text(c.setup, style="bold"), rich_table(means, whole=range(1, len(means.head)))]
    if len(c.rows) > _TOP:
        parts.append(Text(f"... {len(c.rows) - _TOP} more"))
    if c.differences:
        parts.append(rich_table(_differences(c)))
    return Group(*parts, Text(headline, style="bold"), *map(Text, rest))


def numbers(comparisons: Sequence[Comparison], notes: Sequence[str]) -> dict[str, Any]:
    """A tree for json.dumps(allow_nan=False): a number that is not finite is null."""
    tree = [
        {
            "setup": c.setup,
            "metric": c.metric,
            "baseline": c.baseline,
            "verdict": sentences(c),
            "arms": [
                {
                    "arm": row.arm.label,
                    "kind": row.arm.kind,
                    "runs": [view.run_id for view in row.arm.runs],
                    "seeds": seeds(row.arm),
                    "status": runs_said(row),
                    "so_far": row.so_far,
                    "values": {key: asdict(e) for key, e in row.values.items()},
                    "gain": {key: asdict(e) for key, e in row.gain.items()},
                }
                for row in c.rows
            ],
            "differences": [asdict(d) | {"finding": d.finding} for d in c.differences],
        }
        for c in comparisons
    ]
    return finite({"notes": list(notes), "setups": tree})


def _means(c: Comparison) -> Table:
    shown = [key for key in IN_TABLE if any(key in row.values for row in c.rows)]
    rows = []
    for row in c.rows[:_TOP]:
        which = "baseline, " if row is c.rows[0] and len(c.rows) > 1 else ""
        cells = [estimate(key, row.values.get(key), fewer=1) for key in shown]
        between = [Cell(e.text, "" if key == SECONDS else e.below.replace(" to ", "…"))
                   for key, e in zip(shown, cells, strict=True)]  # fmt: skip
        rows.append(("", [Cell(_lines(row.arm.label), which + runs_said(row)), *between]))
    head = [name(key).removesuffix(", nats").replace("worker s", "worker\ns") for key in shown]
    return Table(["arm", *head], rows)


def _differences(c: Comparison) -> Table:
    rows: list[tuple[str, list[Cell | str]]] = []
    for row in c.rows[:_TOP]:
        mine = [d for d in c.differences if d.arm == row.arm.label]
        if mine:
            rows.append(("", [_lines(row.arm.label), *[""] * 5]))
        for d in mine:
            what, *cells = difference(d)
            rows.append(("", [f" {what}", *cells, word(d.metric, d.finding)]))
    return Table(["arm − baseline", "n", "mean", "95 % interval", "p", "finding"], rows)


def _lines(label: str) -> str:
    """Its settings on lines of their own: a column as wide as a line would leave the others no room."""
    kind, dot, settings = label.partition(" · ")
    return kind + (dot and "\n") + settings.replace(", ", "\n")
