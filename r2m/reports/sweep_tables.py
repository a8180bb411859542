"""The numbers of a sweep's report as HTML: tiles, and tables of the confirmation and of the ranking."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from r2m.reports import page
from r2m.results import findings
from r2m.results.answer import Against, Answer
from r2m.results.numbers import decimals, estimate_cells, number
from r2m.results.verdict import fields, held_out, state

METHOD = (
    "Gain: winner minus baseline on the same seeds, positive where the winner is better. " + findings.METHOD
)


def tiles(a: Answer) -> str:
    states = [arm.state for arm in a.ranking if arm.trial is not None]
    counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states)) or "none"
    shown = [(str(len(states)), f"trials: {counts}")]
    if a.winner is not None:
        best, mine = a.arm(a.winner), a.confirmation[0]
        shown = [
            (escape(best.label), "best trial of the search"),
            (
                decimals(mine.mean),
                escape(f"{a.objectives[0]} on {len(mine.values)} of {len(a.confirm)} fresh seeds"),
            ),
            (decimals(best.values[0]), escape(f"{a.objectives[0]} in the search")),
            *shown,
        ]
    hours = "" if a.spent.wall_hours is None else f", {number(a.spent.wall_hours)} h by the clock"
    shown += [
        (f"{a.spent.trajectories:,}", f"trajectories, in {sum(a.spent.runs.values())} runs"),
        (f"{number(a.spent.worker_hours)} h", f"of workers{hours}"),
    ]
    return page.tiles(shown)


def confirmation(a: Answer, own: Mapping[str, str]) -> list[str]:
    if not any(c.values or c.failed for c in a.confirmation):
        return [page.note("No run on a fresh seed has finished yet.")]
    head = ["arm", *(f"seed {seed}" for seed in a.confirm), "mean", *held_out(a)]
    rows = [
        (
            "winner" if c.arm == a.winner else "",
            [
                page.dot(own.get(c.arm)) + escape(c.label),
                *("failed" if seed in c.failed else decimals(c.values.get(seed, math.nan)) for seed in a.confirm),
                f"<b>{decimals(c.mean)}</b>",
                *fields(a, c),
            ],
        )
        for c in a.confirmation
    ]  # fmt: skip
    parts = [
        page.note(f"{escape(a.objectives[0])} of finished runs, a seed each."),
        page.table(head, rows, {0}),
    ]
    if a.comparisons:
        head = [
            "winner against",
            "seeds",
            "mean gain",
            "95 % interval",
            "p",
            "finding",
            "KL of winner",
            "KL of baseline",
        ]
        parts += [
            page.table(head, [("", _compared(own, c)) for c in a.comparisons], {0, 5}),
            page.note(METHOD),
        ]
    return parts


def _compared(own: Mapping[str, str], c: Against) -> list[str]:
    finding = f'<span class="{c.finding}">{c.finding}</span>'
    return [
        page.dot(own.get(c.arm)) + escape(c.label),
        str(c.difference.n),
        *estimate_cells(c.difference),
        finding,
        *(decimals(kl, 2) for kl in c.kl),
    ]


def ranking(a: Answer, own: Mapping[str, str]) -> list[str]:
    keys = params(a)
    broken = ["excess"] * bool(a.constraints)
    head = [
        "",
        "arm",
        "state",
        *map(_heading, a.objectives),
        *broken,
        *held_out(a),
        *map(_heading, keys),
        "trajectories",
        "worker s",
    ]
    rows = []
    for i, arm in enumerate(a.ranking, 1):
        label = f"{arm.label} ({arm.name})" if arm.baseline and arm.trial is not None else arm.label
        excess = [_excess(arm.violation)] * bool(a.constraints)
        cells = [
            str(i), page.dot(own.get(arm.name)) + escape(label), escape(state(a, arm)),
            *map(decimals, arm.values), *excess, *fields(a, arm),
            *(escape(_setting(arm.params[key])) if key in arm.params else "" for key in keys),
            f"{arm.trajectories:,}", f"{arm.worker_s:,.0f}",
        ]  # fmt: skip
        settled = arm.state == "complete" and arm.feasible
        rows.append(("winner" if arm.name == a.winner else "" if settled else "dim", cells))
    means = (
        "Means over the search's seeds at each run's last evaluation"
        if len(a.seeds) > 1
        else "Each run's last evaluation"
    )
    why = f"{means}. The search chose among these values, so the best one is optimistic: the fresh seeds decide."
    return [page.note(why), page.table(head, rows, {1, 2})]


def _excess(violation: float) -> str:
    return "" if violation <= 0 else decimals(violation) if math.isfinite(violation) else "–"


def params(a: Answer) -> list[str]:
    return list(dict.fromkeys(key for arm in a.ranking for key in arm.params))


def _heading(key: str) -> str:
    """`key` on two lines: a section or a phase above, the name below."""
    sign = "/" if "/" in key else "."
    section, _, name = key.rpartition(sign)
    return f"<small>{escape(section)}{sign}</small>{escape(name)}" if section else escape(name)


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
