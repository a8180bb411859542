"""The alarm in tables and on curves: who raised it and what gold was then; where on a run's curve it was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from r2m.reports.document import Cell
from r2m.reports.render import plain
from r2m.reports.style import ALARM, INK
from r2m.results.alarms import Alarms, judgement_label

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from r2m.reports.style import Mark

CAPTION = "Triangles: where a run raised the alarm."


def alarm_columns(found: Sequence[Alarms | None], places: int = 3) -> tuple[list[str], list[list[Cell]]]:
    """Headings, and the cells of each arm; none where no run has looked for the alarm."""
    if not any(found):
        return [], [[] for _ in found]
    head = ["alarm\nraised by", f"{judgement_label(found)} at\nalarm → end"]
    return head, [
        [Cell(of.count, of.when), Cell(of.fall(places))] if of else [Cell("–"), Cell("–")] for of in found
    ]  # fmt: skip


def mark(figure: go.Figure, marks: Iterable[tuple[Mark, str]], named: bool, **place: Any) -> bool:
    """Marks in the colours given, in one panel. Whether there are any. `named`: in the legend, too."""
    found = list(marks)
    if not found:
        return False
    shape = {"symbol": ALARM, "size": 9, "line": {"width": 1.2, "color": INK}}
    if named:  # in no arm's colour
        figure.add_scatter(x=[None], y=[None], mode="markers", name="alarm", legendgroup="alarm",
                           marker=shape | {"color": "white"}, **place)  # fmt: skip
    figure.add_scatter(
        x=[at.x for at, _ in found], y=[at.y for at, _ in found], mode="markers", name="alarm", legendgroup="alarm",
        showlegend=False, text=[f"{plain(at.run)}: alarm at round {at.step}" for at, _ in found],
        hovertemplate="%{text}<extra></extra>", marker=shape | {"color": [colour for _, colour in found]}, **place,
    )  # fmt: skip
    return True
