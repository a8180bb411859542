"""`r2m compare` in a terminal of 80 columns, and its numbers as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from r2m.reports.compare_page import HEADINGS, estimate, seeds, status, what
from r2m.reports.table import terminal_table
from r2m.results.comparison import COLUMNS, SECONDS, Comparison
from r2m.results.comparison_text import sentences, word
from r2m.results.numbers import estimate_cells, finite

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

TOP = 12  # arms shown
IN_TABLE = [
    key for key in (*COLUMNS, SECONDS) if key != "eval/response_tokens"
]  # what 80 columns have room for


def terminal(c: Comparison) -> Group:
    """To be printed by a rich console."""
    from rich.console import Group
    from rich.text import Text

    headline, *rest = sentences(c)
    parts: list[Any] = [Text(c.setup, style="bold"), _means(c)]
    if len(c.rows) > TOP:
        parts.append(Text(f"... {len(c.rows) - TOP} more"))
    if c.differences:
        parts.append(_differences(c))
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
                    "status": status(row),
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
    headings = {key: HEADINGS[key].removesuffix(", nats") for key in shown} | {SECONDS: "worker\ns"}
    table = terminal_table("arm", *(headings[key] for key in shown), text=1)
    for column in table.columns[1:]:
        column.no_wrap = True  # the labels make room
    for row in c.rows[:TOP]:
        estimates = {key: estimate(key, row.values.get(key), fewer=1) for key in shown}
        cells = [mean if key == SECONDS else f"{mean}\n{ends}".rstrip().replace(" to ", "…")
                 for key, (mean, ends) in estimates.items()]  # fmt: skip
        which = "\nbaseline, " if row is c.rows[0] and len(c.rows) > 1 else "\n"
        table.add_row(_label(row.arm.label).append(which + status(row)), *cells)
    return table


def _differences(c: Comparison) -> Table:
    table = terminal_table("arm − baseline", "n", "mean", "95 % interval", "p", "finding", text=1)
    for row in c.rows[:TOP]:
        mine = [d for d in c.differences if d.arm == row.arm.label]
        if mine:
            table.add_row(_label(row.arm.label))
        for d in mine:
            cells = [str(d.estimate.n), *estimate_cells(d.estimate), word(d.metric, d.finding)]
            table.add_row(f" {what(d)}", *cells)
    return table


def _label(label: str) -> Text:
    """Its settings on lines of their own: a column as wide as a line would leave the others no room."""
    from rich.text import Text

    kind, dot, settings = label.partition(" · ")
    return Text(kind + (dot and "\n") + settings.replace(", ", "\n"))
