"""Runs side by side as a table: what proxy, gold and habits did from a run's first round to its last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from r2m.runs.journal import JournalView

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = {  # heading -> metric, which of its values, their format
    "proxy": ("reward/proxy", ("first", "last"), ".2f"),
    "frozen": ("reward/vanilla", ("last",), ".2f"),
    "gold": ("reward/gold", ("first", "best", "last"), ".2f"),
    "KL": ("kl/sequence", ("last",), ".1f"),
    "no space": ("task/no_space_share", ("last",), ".0%"),
}


@dataclass(frozen=True)
class Row:
    """One run. `values`: heading -> the values named in COLUMNS, () where the run has none of the metric."""

    run: str
    arm: str
    status: str
    rounds: int
    values: dict[str, tuple[float, ...]]


def summary(journals: Sequence[JournalView]) -> list[Row]:
    """A row for each run, in the order given. First and last are single rounds, NaN ones left out."""
    return [
        Row(
            view.run_id,
            view.arm,
            view.status,
            len(view.rounds),
            {heading: _pick(view.series(key)[1], which) for heading, (key, which, _) in COLUMNS.items()},
        )
        for view in journals
    ]


def rich_table(rows: Sequence[Row]) -> Table:
    """For a terminal of 80 columns; a run that has not finished says so beside its name."""
    table = terminal_table()
    for heading in _headings():
        table.add_column(
            heading.replace(": ", "\n").replace(" → ", "→"),
            justify="right" if ":" in heading else "left",
            no_wrap=True,
        )
    for row in rows:
        table.add_row(*(cell.replace(" → ", "→") for cell in _cells(row)))
    return table


def terminal_table(*headings: str, text: int = 2) -> Table:
    """Without rows: columns of text, then of numbers, on the right. Of a metric's name the phase is a line above."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold")
    for i, heading in enumerate(headings):
        justify: Literal["left", "right"] = "left" if i < text else "right"
        table.add_column(heading.replace("/", "/\n", 1), justify=justify, overflow="fold")
    return table


def markdown(rows: Sequence[Row]) -> str:
    headings = _headings()
    lines = [headings, ["---:" if ":" in heading else "---" for heading in headings], *map(_cells, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _headings() -> list[str]:
    columns = [f"{heading}: {' → '.join(which)}" for heading, (_, which, _) in COLUMNS.items()]
    return ["run", "arm", *columns]


def _cells(row: Row) -> list[str]:
    run = row.run if row.status == "finished" else f"{row.run} ({row.status} at {row.rounds})"
    values = [
        " → ".join(f"{value:{form}}" for value in row.values[heading]) or "–"
        for heading, (_, _, form) in COLUMNS.items()
    ]
    return [run, row.arm, *values]


def _pick(values: list[float], which: tuple[str, ...]) -> tuple[float, ...]:
    values = [value for value in values if value == value]
    if not values:
        return ()
    picks = {"first": values[0], "best": max(values), "last": values[-1]}
    return tuple(picks[name] for name in which)
