"""What the figures of a sweep's report share: the arms' colours and runs, points that tell their arm.

Text that plotly draws is escaped: it reads a few HTML tags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle
from typing import TYPE_CHECKING, Any

from r2m.reports.curves import COLOURS, OTHER_COLOURS
from r2m.reports.figures import REST
from r2m.runs.journal import JournalView

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from r2m.results.answer import Answer, Ranked

WINNER, *OTHERS = OTHER_COLOURS

Views = Mapping[str, JournalView]


def colours(answer: Answer, views: Views) -> dict[str, str]:
    """Arm -> colour, of the winner and the baselines: the first RLOO and R2M have the colours of the run pictures."""
    free = dict(COLOURS)
    others = cycle(OTHERS)
    out = {}
    for confirmed in answer.confirmation:
        runs = answer.arm(confirmed.arm).runs
        kind = views[runs[0]].arm if runs and runs[0] in views else confirmed.label
        own = WINNER if confirmed.arm == answer.winner else free.pop(kind, None)
        out[confirmed.arm] = own or next(others)
    return out


def confirmed_runs(answer: Answer, views: Views) -> dict[str, list[JournalView]]:
    """The runs of the winner and each baseline on fresh seeds; on the search's where none has begun."""
    return {
        c.arm: [views[run] for run in c.runs.values() or answer.arm(c.arm).runs] for c in answer.confirmation
    }


def scatter(
    figure: go.Figure, answer: Answer, arms: Sequence[Ranked], name: str, symbol: str,
    x: Sequence[Any], y: Sequence[Any],
    colour: str = REST, size: int = 9, **fields: Any,
) -> None:  # fmt: skip
    if not arms:
        return
    figure.add_scatter(
        x=x, y=y, mode="markers", name=escape(name), text=[hover(answer, arm) for arm in arms],
        hovertemplate="%{text}<extra></extra>",
        marker={"symbol": symbol, "size": size, "color": colour, "line": {"width": 1.5, "color": colour}},
        **fields,
    )  # fmt: skip


def hover(answer: Answer, arm: Ranked) -> str:
    label = f"{arm.label} ({arm.name})" if arm.baseline and arm.trial is not None else arm.label
    values = [f"{metric}: {value:.4g}" for metric, value in zip(answer.objectives, arm.values, strict=True)]
    params = [
        f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}"
        for key, value in arm.params.items()
    ]
    return "<br>".join([f"<b>{escape(label)}</b>", *map(escape, values), *map(escape, params)])
