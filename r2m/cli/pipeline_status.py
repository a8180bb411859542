"""How pipelines stand: their executions, and what nobody needs of them any more."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from typer import Argument, Option

from r2m.cli.common import out
from r2m.cli.options import Storage, storage_path
from r2m.errors import UserError, shown

if TYPE_CHECKING:
    from r2m.pipelines.execution import Kept

SHOWN = 20  # executions

Name = Annotated[str | None, Argument(metavar="NAME", help="a pipeline's [default: all]")]


def status(
    name: Name = None,
    all_: Annotated[bool, Option("--all", help=f"every execution, not the newest {SHOWN} alone")] = False,
    storage: Storage = None,
) -> None:
    """Executions, newest first: when, how they ended, what ran, the verdict; of NAME the newest one's steps, too."""
    folder = storage_path(storage)
    kept = _of(folder, name)
    if not kept:
        out.print(f"no pipeline has run in {folder}", soft_wrap=True, highlight=False)
        return
    newest_first = sorted(kept, key=lambda each: each.view.start["time"], reverse=True)
    own = ["pipeline"] if name is None else []
    table = _table(*own, "tick (UTC)", "state", "took", "steps")
    table.add_column("verdict", overflow="fold", ratio=1)
    for each in newest_first if all_ else newest_first[:SHOWN]:
        row = [each.name, _tick(each), each.state, _took(each), _counts(each), each.verdict]
        table.add_row(*row[len(row) - len(table.columns) :])
    out.print(table)
    if len(kept) > SHOWN and not all_:
        out.print(f"{len(kept) - SHOWN:,} older ones: --all", highlight=False)
    if name is not None:
        out.print(f"\nSteps of {newest_first[0].folder.name}", soft_wrap=True, highlight=False)
        out.print(_steps(newest_first[0]))
        out.print(f"look: {newest_first[0].folder}", soft_wrap=True, highlight=False)


def gc(
    name: Name = None,
    *,
    keep: Annotated[int, Option(min=0, metavar="N", help="executions of each pipeline that stay, the newest")],
    yes: Annotated[bool, Option("--yes", help="do not ask")] = False,
    storage: Storage = None,
) -> None:
    """Remove older executions, and results, sweeps and runs that nothing refers to then. Says first what goes."""
    from r2m.files import human
    from r2m.pipelines.gc import find_garbage, remove_garbage

    folder = storage_path(storage)
    _of(folder, name)
    garbage = find_garbage(folder, keep, name)
    parts = list(garbage.parts(folder))
    if not parts:
        out.print(f"nothing to remove in {folder}", soft_wrap=True, highlight=False)
        return
    table = _table("what goes", "how many", "frees")
    table.add_column("which", overflow="fold", ratio=1)
    for what, names, size in parts:
        more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
        table.add_row(what, f"{len(names):,}", human(size), ", ".join(names[:3]) + more)
    out.print(table)
    total = human(sum(size for _, _, size in parts))
    out.print(f"in all {total}. What MLflow has of them stays, registered models too.", highlight=False)
    if not yes:
        if not sys.stdin.isatty():
            out.print("nothing has been removed: to do it without being asked, --yes", highlight=False)
            return
        typer.confirm("remove it?", abort=True)
    remove_garbage(folder, garbage, keep, name)
    out.print(f"removed: {total}", highlight=False)


def _of(storage: str, name: str | None) -> list[Kept]:
    """Raises UserError for a pipeline that has not run."""
    from r2m.pipelines.execution import executions, names_of

    kept = executions(storage)
    if name is not None and name not in names_of(kept):
        there = ", ".join(names_of(kept)) or "none"
        raise UserError(f"NAME = {shown(name)}: no such pipeline has run in {storage}; there are: {there}")
    return [each for each in kept if name in (None, each.name)]


def _table(*columns: str) -> Table:
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _tick(each: Kept) -> str:
    if each.tick is None:
        return f"{_said(each.view.start['time'])}\nby hand"
    return _said(each.tick.timestamp())


def _said(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M")


def _took(each: Kept) -> str:
    from r2m.training.duration import time_text

    since = time.time() - each.view.events[-1]["time"] if each.running and each.view.events else 0
    return time_text(each.seconds + since)


def _counts(each: Kept) -> str:
    states = [event["state"] for event in each.steps.values()]
    said = {"done": "ran", "running": "running", "cached": "cached", "failed": "failed", "blocked": "blocked"}
    return "\n".join(f"{states.count(state)} {word}" for state, word in said.items() if state in states)


def _steps(each: Kept) -> Table:
    from r2m.training.duration import time_text

    table = _table("step", "state", "took")
    table.add_column("", overflow="fold", ratio=1)
    for name, step in each.view.start["config"]["steps"].items():
        event = each.steps.get(name, {})
        state = event.get("state", "waiting")
        if state == "running" and not each.running:
            state = "interrupted"
        took = time_text(event["seconds"]) if "seconds" in event else ""
        by = f"by {event['made_by'].rpartition('.')[0]}" if state == "cached" else ""
        table.add_row(f"{name} ({step['use']})", state, took, by or event.get("reason"))
    return table
