"""Figures that can be zoomed, in the look of all reports: a plotly figure each, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from r2m.metrics import metric
from r2m.reports.alarms import mark
from r2m.reports.render import plain
from r2m.reports.style import BOLD, FAINT, GRID, INK, REST, THIN, Group, Mark, drawn
from r2m.results.readings import trajectory

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_POINTS = 400  # of an arm in a panel


def panels(metrics: Sequence[str], x: str, columns: int = 3) -> tuple[go.Figure, dict[str, dict[str, int]]]:
    """A panel for each metric, with its title and unit, in rows of so many; and each one's place."""
    from plotly.subplots import make_subplots

    columns = min(columns, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = make_subplots(
        rows, columns, subplot_titles=[metric(key).title for key in metrics],
        horizontal_spacing=0.07, vertical_spacing=0.34 / rows,
    )  # fmt: skip
    places = {key: {"row": i // columns + 1, "col": i % columns + 1} for i, key in enumerate(metrics)}
    for key, place in places.items():
        figure.update_yaxes(title_text=metric(key).unit, **place)
        figure.update_xaxes(title_text=x, **place)
    return styled(figure, 400 + 320 * (rows - 1), above=40), places


def curves(groups: Sequence[Group], metrics: Sequence[str], columns: int = 3) -> go.Figure | str:
    """Metrics over the trajectories seen: a panel each, those that no run has left out."""
    shown = drawn(groups, metrics)
    if not shown:
        return f"No run has any of {', '.join(metrics)} yet."
    figure, places = panels(shown, "trajectories", columns)
    for group in groups:
        named = False
        for key, place in places.items():
            lines(figure, group, key, place, named=not named)
            named = named or bool(group.curves(key))
    _alarms(figure, places, {key: [(at, g.colour) for g in groups for at in g.alarms(key)] for key in places})
    return figure


def lines(
    figure: go.Figure, group: Group, key: str, place: Mapping[str, int] | None = None, named: bool = True
) -> None:
    """Thin: a seed. Bold: their mean, where all of them have a value. `named`: in the legend, too."""
    seeds, mean, place = group.curves(key), group.mean(key), place or {}
    line = {"color": group.colour, "dash": group.dash}
    for curve in seeds if len(seeds) > 1 else ():
        figure.add_scatter(x=list(curve), y=list(curve.values()), mode="lines", opacity=FAINT, showlegend=False,
                           line=line | {"width": THIN}, hoverinfo="skip", **place)  # fmt: skip
    if seeds:
        figure.add_scatter(x=list(mean), y=list(mean.values()), mode="lines" if len(mean) > 1 else "markers",
                           name=plain(group.label), legendgroup=group.label, line=line | {"width": BOLD},
                           showlegend=named, **place)  # fmt: skip


def over_kl(groups: Sequence[Group], metrics: Sequence[str]) -> go.Figure | str:
    """Fig. 5: a panel for each reward, a point for each round, by the round's KL: higher and further left is more
    reward for less drift. At most about MOST_POINTS rounds of an arm, evenly chosen."""
    points = {key: [_points(group, key) for group in groups] for key in metrics}
    points = {key: by_group for key, by_group in points.items() if any(by_group)}
    if not points:
        return f"No run has a round with its KL and any of {', '.join(metrics)} yet."
    figure, places = panels(list(points), "KL, nats per sequence")
    named = set()
    for key, by_group in points.items():
        for group, found in zip(groups, by_group, strict=True):
            if found:
                x, y, text = zip(*found, strict=True)
                symbol = "circle" if group.dash == "solid" else "x-thin-open"
                figure.add_scatter(
                    x=x, y=y, text=text, mode="markers", name=plain(group.label), legendgroup=group.label,
                    marker={"color": group.colour, "size": 6, "opacity": 0.5, "symbol": symbol},
                    hovertemplate="%{text}: %{y:.3g} at KL %{x:.3g}<extra></extra>",
                    showlegend=group.label not in named, **places[key],
                )  # fmt: skip
                named.add(group.label)
    marks = {key: [(at, g.colour) for g in groups for at in g.alarms_over_kl(key)] for key in places}
    _alarms(figure, places, marks)
    return figure


def _alarms(
    figure: go.Figure, places: Mapping[str, Mapping[str, int]], marks: Mapping[str, Sequence[tuple[Mark, str]]]
) -> None:
    named = False
    for key, place in places.items():
        named = mark(figure, marks[key], not named, **place) or named


def _points(group: Group, key: str) -> list[tuple[float, float, str]]:
    """KL, the metric and where it is from, of every round that has both."""
    found = [
        (kl, value, f"{plain(view.run_id)}, round {step}")
        for view in group.views
        for step, (kl, value) in trajectory(view, key).items()
    ]
    return found[:: -(-len(found) // MOST_POINTS) or 1]


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
        "gridcolor": GRID, "linecolor": REST, "zeroline": False, "automargin": True, "title_standoff": 8,
        "title_font_size": font["size"],
    }  # fmt: skip
    figure.update_xaxes(**axis, showline=True, ticks="outside", tickcolor=REST)
    figure.update_yaxes(**axis)
    return figure
