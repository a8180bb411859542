"""The answer in a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from r2m.reports.table import terminal_table
from r2m.results.answer import Answer
from r2m.results.numbers import decimals, estimate_cells
from r2m.results.verdict import fields, held_out, spent, state

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

TOP = 10  # arms shown
WIDTH = 80


def terminal(a: Answer) -> Group:
    """To be printed by a rich console."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [_ranking(a)]
    if len(a.ranking) > TOP:
        parts.append(Text(f"... {len(a.ranking) - TOP} more"))
    if any(c.values or c.failed for c in a.confirmation):
        parts.append(_confirmation(a))
    headline, *rest = a.verdict
    parts += [Text(headline, style="bold"), *map(Text, rest)]
    if a.winner is not None and (command := a.arm(a.winner).command):
        parts.append(Text(f"\nagain, {a.winner}:\n{_continued(command)}"))
    if a.search:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in a.importance.items())
        mind = f" ({a.importance_note})" if shares and a.importance_note else ""
        parts.append(Text(f"\nimportance: {shares or f'none: {a.importance_note}'}{mind}"))
    parts.append(Text(f"spent: {spent(a)}"))
    return Group(*parts)


def _continued(command: str) -> str:
    """The command on lines that fit, each but the last continued by a backslash, so that it can be copied."""
    lines = [""]
    for part in command.replace(" --set ", "\n--set ").split("\n"):
        if lines[-1] and len(lines[-1]) + len(part) > WIDTH - 3:
            lines.append("   ")
        lines[-1] += f" {part}" if lines[-1] else part
    return " \\\n".join(lines)


def _ranking(a: Answer) -> Table:
    table = terminal_table("arm", "state", *a.objectives, *held_out(a), "traj.", "worker s")
    for arm in a.ranking[:TOP]:
        mark = " *" if arm.name == a.winner else ""
        cells = [*map(decimals, arm.values), *fields(a, arm), f"{arm.trajectories:,}", f"{arm.worker_s:,.0f}"]
        table.add_row(arm.label + mark, state(a, arm), *cells, style="bold" if mark else "")
    return table


def _confirmation(a: Answer) -> Table:
    table = terminal_table("fresh seeds", "", "n", a.objectives[0], "KL", "gain", "95 % interval", "p")
    against = {c.arm: c for c in a.comparisons}
    for c in a.confirmation:
        cells = ["", "", ""]
        if (comparison := against.get(c.arm)) is not None:
            cells = estimate_cells(comparison.difference)
        mark = "winner" if c.arm == a.winner else ""
        table.add_row(c.label, mark, str(len(c.values)), decimals(c.mean), decimals(c.kl, 2), *cells)
    return table
