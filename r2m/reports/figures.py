"""Figures of runs that can be zoomed, in the look of all reports: a plotly figure each, or why there is none.

Text that plotly draws is escaped: it reads a few HTML tags.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from r2m.reports.curves import PANELS
from r2m.results.readings import trajectories_a_round
from r2m.runs.journal import JournalView

if TYPE_CHECKING:
    import plotly.graph_objects as go

REST, INK, GRID = "#8a94a3", "#1d2430", "#e6e9ee"  # other arms; text; lines
SCALE = [[0.0, "#c6dbec"], [0.5, "#56a0d3"], [1.0, "#08427a"]]  # light to dark: read without colours too


TITLES = PANELS | {
    "eval/gold": ("Gold reward, held-out prompts", "gold score"),
    "eval/win_rate": ("Win rate, held-out prompts", "share"),
    "eval/vanilla": ("Frozen reward model, held-out prompts", "score"),
    "eval/kl_sequence": ("KL from the reference, held-out prompts", "nats per sequence"),
}
MOST_POINTS = 400  # of an arm in a panel


@dataclass(frozen=True)
class Group:
    """Runs that are drawn alike: an arm's seeds."""

    label: str
    colour: str
    views: Sequence[JournalView]
    dash: str = "solid"


def curves(groups: Sequence[Group], metrics: Sequence[str], columns: int = 3) -> go.Figure | str:
    """Metrics over the trajectories seen, which arms of another K share, unlike rounds: a panel each, those that no
    run has left out. Thin: a seed. Bold: the mean of an arm, where all of its runs have a value.
    """
    from plotly.subplots import make_subplots

    panels = [key for key in metrics if any(view.series(key)[0] for group in groups for view in group.views)]
    if not panels:
        return f"No run has any of {', '.join(metrics)} yet."
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    titles = [_title(key)[0] for key in panels]
    figure = make_subplots(
        rows, columns, subplot_titles=titles, horizontal_spacing=0.07, vertical_spacing=0.34 / rows
    )
    for number, group in enumerate(groups):
        line, shown = {"color": group.colour, "dash": group.dash}, False
        for i, key in enumerate(panels):
            place = {"row": i // columns + 1, "col": i % columns + 1}
            seeds = [curve for view in group.views if (curve := _curve(view, key))]
            for curve in seeds if len(seeds) > 1 else ():
                figure.add_scatter(x=list(curve), y=list(curve.values()), mode="lines", opacity=0.3, showlegend=False,
                                   line=line | {"width": 1}, hoverinfo="skip", **place)  # fmt: skip
            if seeds:
                steps = sorted(set.intersection(*map(set, seeds)))
                means = [math.fsum(curve[step] for curve in seeds) / len(seeds) for step in steps]
                mode = "lines" if len(steps) > 1 else "markers"
                figure.add_scatter(x=steps, y=means, mode=mode, name=escape(group.label), legendgroup=f"{number}",
                                   line=line | {"width": 2.5}, showlegend=not shown, **place)  # fmt: skip
                shown = True
    for i, key in enumerate(panels):
        place = {"row": i // columns + 1, "col": i % columns + 1}
        figure.update_yaxes(title_text=_title(key)[1], **place)
        figure.update_xaxes(title_text="trajectories", **place)
    return styled(figure, 400 + 320 * (rows - 1), above=40)


def rewards_over_kl(groups: Sequence[Group], metrics: Sequence[str]) -> go.Figure | str:
    """Fig. 5: a panel for each reward, a point for each training round, by the round's KL: higher and further left is
    more reward for less drift. At most about MOST_POINTS rounds of an arm, evenly chosen."""
    from plotly.subplots import make_subplots

    points = {key: [_points(group, key) for group in groups] for key in metrics}
    points = {key: by_group for key, by_group in points.items() if any(by_group)}
    if not points:
        return f"No run has a round with its KL and any of {', '.join(metrics)} yet."
    titles = [_title(key)[0] for key in points]
    figure = make_subplots(1, len(points), subplot_titles=titles, horizontal_spacing=0.07)
    shown = set()
    for column, (key, by_group) in enumerate(points.items(), 1):
        for i, (group, found) in enumerate(zip(groups, by_group, strict=True)):
            if found:
                x, y, text = zip(*found, strict=True)
                figure.add_scatter(
                    x=x, y=y, text=text, mode="markers", name=escape(group.label), legendgroup=f"{i}",
                    marker={"color": group.colour, "size": 6, "opacity": 0.5,
                            "symbol": "circle" if group.dash == "solid" else "x-thin-open"},
                    hovertemplate="%{text}: %{y:.3g} at KL %{x:.3g}<extra></extra>",
                    showlegend=i not in shown, row=1, col=column,
                )  # fmt: skip
                shown.add(i)
        figure.update_yaxes(title_text=_title(key)[1], row=1, col=column)
        figure.update_xaxes(title_text="KL, nats per sequence", row=1, col=column)
    return styled(figure, 400, above=40)


def _points(group: Group, metric: str) -> list[tuple[float, float, str]]:
    """KL, the metric and where it is from, of every round that has both."""
    found = [
        (m["kl/sequence"], m[metric], f"{escape(view.run_id)}, round {step}")
        for view in group.views
        for step, m in view.rounds.items()
        if metric in m and "kl/sequence" in m
    ]
    return found[:: -(-len(found) // MOST_POINTS) or 1]


def _title(metric: str) -> tuple[str, str]:
    """Title and unit of a panel."""
    return TITLES.get(metric, (metric, ""))


def _curve(view: JournalView, key: str) -> dict[int, float]:
    steps, values = view.series(key)
    return {step * trajectories_a_round(view): value for step, value in zip(steps, values, strict=True)}


def styled(figure: go.Figure, height: int, above: int = 0) -> go.Figure:
    """`above`: pixels between the plot and the legend, where panels have titles."""
    font = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12.5, "color": INK}
    top = 1 + (6 + above) / (height - 96 - above)  # in heights of the plot: the margins are 96 and `above`
    figure.update_layout(
        template="none", font=font, title=None, height=height, autosize=True, hovermode="closest",
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 64, "r": 24, "t": 44 + above, "b": 52},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": top, "yanchor": "bottom"},
        hoverlabel={"bgcolor": "white", "bordercolor": GRID, "font": font, "align": "left"},
    )  # fmt: skip
    axis = {
        "gridcolor": GRID,
        "linecolor": REST,
        "zeroline": False,
        "automargin": True,
        "title_standoff": 8,
        "title_font_size": font["size"],
    }
    figure.update_xaxes(**axis, showline=True, ticks="outside", tickcolor=REST)
    figure.update_yaxes(**axis)
    return figure
