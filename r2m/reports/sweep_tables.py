"""A sweep's numbers: tiles, confirmation and ranking for its page and for MLflow, and the answer in a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from r2m.reports.alarms import alarm_columns
from r2m.reports.document import Cell, Line, Note, Part, Table, Tiles, heading
from r2m.reports.table import rich_table
from r2m.results.answer import Answer
from r2m.results.numbers import METHOD, decimals, estimate_cells, finite, number, setting_text
from r2m.results.verdict import counted, fields, held_out, spent, state

if TYPE_CHECKING:
    from rich.console import Group

_TOP = 10  # arms shown in a terminal
WIDTH = 80

Colours = Mapping[str, str]  # an arm's name -> its colour


def tiles(a: Answer) -> Tiles:
    states = [arm.state for arm in a.ranking if arm.trial is not None]
    shown = [(str(len(states)), f"trials: {counted(states) or 'none'}")]
    if a.winner is not None:
        best, mine, objective = a.arm(a.winner), a.confirmation[0], a.objectives[0]
        shown = [
            (best.label, "best trial of the search"),
            (decimals(mine.mean), f"{objective} on {len(mine.values)} of {len(a.confirm)} fresh seeds"),
            (decimals(best.values[0]), f"{objective} in the search"),
            *shown,
        ]
    hours = "" if a.spent.wall_hours is None else f", {number(a.spent.wall_hours)} h by the clock"
    shown += [
        (f"{a.spent.trajectories:,}", f"trajectories, in {sum(a.spent.runs.values())} runs"),
        (f"{number(a.spent.worker_hours)} h", f"of workers{hours}"),
    ]
    return Tiles(shown)


def confirmation(a: Answer, own: Colours) -> list[Part]:
    if not any(c.values or c.failed for c in a.confirmation):
        return [Note("No run on a fresh seed has finished yet.")]
    alarm, alarms = alarm_columns([c.alarm for c in a.confirmation])
    head = ["arm", *(f"seed {seed}" for seed in a.confirm), "mean", *held_out(a), *alarm]
    rows: list[Line] = [
        ("winner" if c.arm == a.winner else "", [
            Cell(c.label, colour=own[c.arm]),
            *("failed" if seed in c.failed else decimals(c.values.get(seed, math.nan)) for seed in a.confirm),
            Cell(decimals(c.mean), kind="strong"),
            *fields(a, c), *cells,
        ])
        for c, cells in zip(a.confirmation, alarms, strict=True)
    ]  # fmt: skip
    parts: list[Part] = [Note(f"{a.objectives[0]} of finished runs, a seed each."), Table(head, rows)]
    if a.comparisons:
        head = ["winner against", "seeds", "mean gain", "95 % interval", "p", "finding", "KL of winner",
                "KL of baseline"]  # fmt: skip
        compared: list[Line] = [
            ("", [
                Cell(c.label, colour=own[c.arm]), str(c.difference.n), *estimate_cells(c.difference),
                Cell("–" if c.finding == "too few seeds" else c.finding, kind=c.finding),
                *(decimals(kl, 2) for kl in c.kl),
            ])
            for c in a.comparisons
        ]  # fmt: skip
        gain = "Gain: winner minus baseline on the same seeds, positive where the winner is better."
        parts += [Table(head, compared, {0, 5}), Note(f"{gain} {METHOD}")]
    return parts


def ranking(a: Answer, own: Colours) -> Table:
    keys, limits = _params(a), bool(a.constraints)
    alarm, alarms = alarm_columns([arm.alarm for arm in a.ranking])
    head = ["", "arm", "state", *map(heading, a.objectives), *["excess"] * limits, *held_out(a),
            *alarm, *map(heading, keys), "trajectories", "worker s"]  # fmt: skip
    rows: list[Line] = []
    for i, (arm, told) in enumerate(zip(a.ranking, alarms, strict=True), 1):
        cells: list[Cell | str] = [
            str(i), Cell(arm.in_search, colour=own.get(arm.name, "")), state(a, arm),
            *map(decimals, arm.values), *[_excess(arm.violation)] * limits, *fields(a, arm), *told,
            *(setting_text(arm.params[key]) if key in arm.params else "" for key in keys),
            f"{arm.trajectories:,}", f"{arm.worker_s:,.0f}",
        ]  # fmt: skip
        settled = arm.state == "complete" and arm.feasible
        rows.append(("winner" if arm.name == a.winner else "" if settled else "dim", cells))
    return Table(head, rows, {1, 2})


def ranking_table(a: Answer) -> dict[str, Any]:
    """MLflow's table: {"columns": [...], "data": [[...], ...]}; a number that is not finite is null."""
    keys = _params(a)
    names = ("kl", "gold", "vanilla", "violation", "trajectories", "worker_s", "command")
    heard = ("alarms", "judged_at_alarm", "judged_at_end")
    settings = [key.replace(".", "/") for key in keys]  # MLflow takes a dot for a path into the row
    columns = ["rank", "arm", "label", "state", *a.objectives, "feasible", *names, *heard, *settings]
    data = [
        [i, arm.name, arm.label, arm.state, *arm.values, arm.feasible, *(getattr(arm, name) for name in names),
         *((len(arm.alarm.rounds), arm.alarm.at, arm.alarm.end) if arm.alarm else (None,) * len(heard)),
         *(arm.params.get(key) for key in keys)]
        for i, arm in enumerate(a.ranking, 1)
    ]  # fmt: skip
    return {"columns": columns, "data": finite(data)}


def sweep_terminal(a: Answer) -> Group:
    """The answer, to be printed by a rich console of 80 columns."""
    from rich.console import Group
    from rich.text import Text

    alarm, _ = alarm_columns([arm.alarm for arm in a.ranking])
    shown = {name: name for name in ("arm", "state", *map(heading, a.objectives), *held_out(a), *alarm)}
    shown |= {"trajectories": "traj."} | ({} if alarm else {"worker s": "worker s"})
    whole = [i for i, name in enumerate(shown) if name in alarm]
    parts: list[Any] = [rich_table(ranking(a, {}), shown, most=_TOP, whole=whole)]
    if len(a.ranking) > _TOP:
        parts.append(Text(f"... {len(a.ranking) - _TOP} more"))
    if any(c.values or c.failed for c in a.confirmation):
        parts.append(rich_table(_short_confirmation(a)))
    headline, *rest = a.verdict
    parts += [Text(headline, style="bold"), *map(Text, rest)]
    if a.winner is not None and (command := a.arm(a.winner).command):
        parts.append(Text(f"\nagain, {a.winner}:\n{continued(command)}"))
    if a.search:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in a.importance.items())
        mind = f" ({a.importance_note})" if shares and a.importance_note else ""
        parts.append(Text(f"\nimportance: {shares or f'none: {a.importance_note}'}{mind}"))
    parts.append(Text(f"spent: {spent(a)}"))
    return Group(*parts)


def continued(command: str) -> str:
    """The command on lines that fit, each but the last continued by a backslash, so that it can be copied."""
    lines = [""]
    for part in command.replace(" --set ", "\n--set ").split("\n"):
        if lines[-1] and len(lines[-1]) + len(part) > WIDTH - 3:
            lines.append("   ")
        lines[-1] += f" {part}" if lines[-1] else part
    return " \\\n".join(lines)


def _short_confirmation(a: Answer) -> Table:
    against = {c.arm: estimate_cells(c.difference) for c in a.comparisons}
    rows = [
        ("", [c.label, "winner" if c.arm == a.winner else "", str(len(c.values)), decimals(c.mean),
              decimals(c.kl, 2), *against.get(c.arm, ["", "", ""])])
        for c in a.confirmation
    ]  # fmt: skip
    return Table(["fresh seeds", "", "n", heading(a.objectives[0]), "KL", "gain", "95 % interval", "p"], rows, {0, 1})


def _params(a: Answer) -> list[str]:
    return list(dict.fromkeys(key for arm in a.ranking for key in arm.params))


def _excess(violation: float) -> str:
    return "" if violation <= 0 else decimals(violation) if math.isfinite(violation) else "–"
