"""A picture of arms beside each other, as a file: what training saw (proxy) and what it was for (gold)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from r2m.errors import UserError
from r2m.metrics import metric
from r2m.reports.style import BOLD, FAINT, INK, THIN, Group, drawn
from r2m.runs.journal import JournalView

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = (
    "reward/proxy", "reward/vanilla", "reward/gold", "kl/sequence", "task/no_space_share", "reward/gold_correlation",
)  # fmt: skip
STYLE = matplotlib.rc_params_from_file(
    Path(__file__).parent / "templates" / "curves.mplstyle", use_default_template=False
)
_POINTS = 0.72  # a line's width here, of a pixel's on a page


def plot(groups: Sequence[Group], path: Path | str) -> None:
    """Draw the runs into `path`, PNG or SVG by its ending. Panels without data are left out. Thin: a seed. Bold: the
    mean of an arm's seeds over the trajectories that all of them have.

    Raises UserError where no run has any of the metrics.
    """
    panels = drawn(groups, PANELS)
    if not panels:
        raise UserError(f"runs = {[group.label for group in groups]}: no rounds with any of {', '.join(PANELS)}")
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * columns, 2.6 * rows + 0.9), layout="constrained", dpi=150)
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True).flatten()
        if panels[:2] == ["reward/proxy", "reward/vanilla"]:
            axes[1].sharey(axes[0])  # one scale: the gap between the two is the feedback's doing
        for ax, key in zip(axes, panels, strict=False):
            ax.set(title=metric(key).title, ylabel=metric(key).unit)
            for group in groups:
                _lines(ax, key, group)
        for ax in axes[len(panels) :]:
            ax.remove()
        for ax in axes[max(0, len(panels) - columns) : len(panels)]:
            ax.set_xlabel("trajectories")
            ax.tick_params(labelbottom=True)
        title = _title([view for group in groups for view in group.views])
        figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
        names = {label: line for ax in axes for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        if any(view.alarm for group in groups for view in group.views):
            names["alarm"] = Line2D([], [], marker="v", color="none", markerfacecolor="white", markeredgecolor=INK)
        figure.legend(names.values(), names.keys(), loc="outside lower center", ncols=4)
        metadata = {"Date": None} if Path(path).suffix == ".svg" else None
        figure.savefig(path, metadata=metadata)


def _lines(ax: Axes, key: str, group: Group) -> None:
    seeds, mean = group.curves(key), group.mean(key)
    style: dict[str, Any] = {"color": group.colour, "linestyle": "-" if group.dash == "solid" else "--"}
    for curve in seeds if len(seeds) > 1 else ():
        ax.plot(list(curve), list(curve.values()), alpha=FAINT, linewidth=THIN * _POINTS, **style)
    if seeds:
        for at in group.alarms(key):
            ax.plot(at.x, at.y, "v", color=group.colour, markeredgecolor=INK, markersize=7)
        name = f"{group.label} (mean of {len(group.views)})" if len(group.views) > 1 else group.label
        ax.plot(list(mean), list(mean.values()), linewidth=BOLD * _POINTS, label=name, **style)


def _title(views: Sequence[JournalView]) -> str:
    tasks = dict.fromkeys(f"{view.start['task']}, policy {view.start['policy']}" for view in views)
    seeds = sorted({view.seed for view in views})
    return f"{'; '.join(tasks)} · seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
