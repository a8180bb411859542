"""The answer in a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from r2m.reports.document import Table, heading
from r2m.reports.sweep_tables import ranking
from r2m.reports.table import rich_table
from r2m.results.answer import Answer
from r2m.results.numbers import decimals, estimate_cells
from r2m.results.verdict import held_out, spent

if TYPE_CHECKING:
    from rich.console import Group

_TOP = 10  # arms shown
WIDTH = 80


def terminal(a: Answer) -> Group:
    """To be printed by a rich console."""
    from rich.console import Group
    from rich.text import Text

    shown = {name: name for name in ("arm", "state", *map(heading, a.objectives), *held_out(a))}
    shown |= {"trajectories": "traj.", "worker s": "worker s"}
    parts: list[Any] = [rich_table(ranking(a, {}), shown, most=_TOP)]
    if len(a.ranking) > _TOP:
        parts.append(Text(f"... {len(a.ranking) - _TOP} more"))
    if any(c.values or c.failed for c in a.confirmation):
        parts.append(rich_table(_confirmation(a)))
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


def _confirmation(a: Answer) -> Table:
    against = {c.arm: estimate_cells(c.difference) for c in a.comparisons}
    rows = [
        ("", [c.label, "winner" if c.arm == a.winner else "", str(len(c.values)), decimals(c.mean),
              decimals(c.kl, 2), *against.get(c.arm, ["", "", ""])])
        for c in a.confirmation
    ]  # fmt: skip
    return Table(["fresh seeds", "", "n", heading(a.objectives[0]), "KL", "gain", "95 % interval", "p"], rows, {0, 1})
