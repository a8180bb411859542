"""Tables on a terminal; and runs side by side as one: what proxy, gold and habits did from first round to last."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from r2m.metrics import metric
from r2m.reports.document import Cell, Table
from r2m.runs.journal import JournalView

if TYPE_CHECKING:
    from rich.table import Table as RichTable

RUN_COLUMNS = {  # metric -> which of its values, their format
    "reward/proxy": (("first", "last"), ".2f"),
    "reward/vanilla": (("last",), ".2f"),
    "reward/gold": (("first", "best", "last"), ".2f"),
    "kl/sequence": (("last",), ".1f"),
    "task/no_space_share": (("last",), ".0%"),
}


def runs_table(journals: Sequence[JournalView]) -> Table:
    """A row for each run, in the order given. First and last are single rounds, NaN ones left out; a run that has
    not finished says so beside its name."""
    head = [f"{metric(key).label}\n{'→'.join(which)}" for key, (which, _) in RUN_COLUMNS.items()]
    rows = []
    for view in journals:
        so_far = "" if view.status == "finished" else f" ({view.status} at {len(view.rounds)})"
        values = [_picked(view.series(key)[1], *which) for key, which in RUN_COLUMNS.items()]
        rows.append(("", [view.run_id + so_far, view.arm, *values]))
    return Table(["run", "arm", *head], rows, {0, 1})


def _picked(values: list[float], which: tuple[str, ...], form: str) -> str:
    values = [value for value in values if value == value]
    if not values:
        return "–"
    picks = {"first": values[0], "best": max(values), "last": values[-1]}
    return "→".join(f"{picks[name]:{form}}" for name in which)


def rich_table(
    table: Table, names: Mapping[str, str] | None = None, most: int | None = None, whole: Collection[int] = ()
) -> RichTable:
    """For a terminal of 80 columns.

    Args:
        names: the columns to show, heading -> heading here; all if not given.
        most: rows. A winner is bold and has a star.
        whole: columns whose cells do not wrap.
    """
    shown = [i for i, name in enumerate(table.head) if names is None or name in names]
    headings = [table.head[i] if names is None else names[table.head[i]] for i in shown]
    made = terminal_table(*headings, text=[at for at, i in enumerate(shown) if i in table.text])
    for at, i in enumerate(shown):
        made.columns[at].no_wrap = i in whole
    for kind, cells in table.rows[:most]:
        texts = [_text(cells[i]) for i in shown]
        if kind == "winner":
            texts[0].append(" *")
        made.add_row(*texts, style="bold" if kind == "winner" else "")
    return made


def terminal_table(*headings: str, text: Collection[int] = (0, 1)) -> RichTable:
    """Without rows: columns of numbers, on the right, but for those of text."""
    from rich import box
    from rich.table import Table as RichTable

    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="bold")
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i in text else "right", overflow="fold")
    return table


def _text(cell: Cell | str) -> Text:
    """No markup."""
    return Text(cell if isinstance(cell, str) else f"{cell.text}\n{cell.below}".rstrip("\n"))
