"""The picture of a comparison: what training saw (proxy) over what it was for (gold), round by round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from r2m.errors import UserError
from r2m.runs.journal import JournalView

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = {  # metric -> title, axis label with unit
    "reward/proxy": ("Proxy reward (trains the policy)", "score"),
    "reward/vanilla": ("Frozen reward model", "score"),
    "reward/gold": ("Gold reward (never trained on)", "gold score"),
    "kl/sequence": ("KL from the reference", "nats per sequence"),
    "task/no_space_share": ("Words without a space", "share of words"),
    "reward/gold_correlation": ("Correlation of proxy and gold", "Pearson's r"),
}
# Okabe and Ito's palette: told apart by colour-blind readers. The arms that the paper compares come first.
COLOURS = {"RLOO": "#D55E00", "R2M": "#0072B2"}
OTHER_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.edgecolor": "#888888",
    "axes.axisbelow": True,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.08,
    "legend.frameon": False,
    "text.parse_math": False,  # labels may hold a $
    "svg.hashsalt": "r2m",  # the same curves make the same file
}


def plot(runs: Sequence[tuple[str, JournalView]], path: Path | str) -> None:
    """Draw labelled runs into `path`, PNG or SVG by its ending. Panels without data are left out.

    Runs that share a label are repeats (seeds): thin lines, and their mean over the rounds that all of them
    have in bold. Colour tells the arm, line style the labels of one arm.

    Raises UserError where no run has any of the metrics.
    """
    import matplotlib
    from matplotlib.figure import Figure

    panels = [key for key in PANELS if any(view.series(key)[0] for _, view in runs)]
    if not panels:
        raise UserError(f"runs = {[label for label, _ in runs]}: no rounds with any of {', '.join(PANELS)}")
    groups: dict[str, list[JournalView]] = {}
    for label, view in runs:
        groups.setdefault(label, []).append(view)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * columns, 2.6 * rows + 0.9), layout="constrained", dpi=150)
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True).flatten()
        if panels[:2] == ["reward/proxy", "reward/vanilla"]:
            axes[1].sharey(axes[0])  # one scale: the gap between the two is the feedback's doing
        for ax, key in zip(axes, panels, strict=False):
            _panel(ax, key, groups)
        for ax in axes[len(panels) :]:
            ax.remove()
        for ax in axes[max(0, len(panels) - columns) : len(panels)]:
            ax.set_xlabel("round")
            ax.tick_params(labelbottom=True)
        figure.suptitle(_title([view for _, view in runs]), fontsize=12, fontweight="bold", x=0.01, ha="left")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        metadata = {"Date": None} if Path(path).suffix == ".svg" else None
        figure.savefig(path, metadata=metadata)


def _panel(ax: Axes, key: str, groups: dict[str, list[JournalView]]) -> None:
    title, unit = PANELS[key]
    ax.set(title=title, ylabel=unit)
    others: dict[str, str] = {}
    styles: dict[str, Iterator[str]] = {}
    for label, views in groups.items():
        arm = views[0].arm
        colour = COLOURS.get(arm) or others.setdefault(arm, OTHER_COLOURS[len(others) % len(OTHER_COLOURS)])
        style = next(styles.setdefault(arm, cycle(("-", "--", ":", "-."))))
        curves = [dict(zip(*view.series(key), strict=True)) for view in views]
        if len(curves) > 1:
            for curve in curves:
                ax.plot(list(curve), list(curve.values()), style, color=colour, alpha=0.35, linewidth=0.8)
        steps = sorted(set.intersection(*map(set, curves)))
        means = [fmean(curve[step] for curve in curves) for step in steps]
        name = f"{label} (mean of {len(views)})" if len(views) > 1 else label
        ax.plot(steps, means, style, color=colour, linewidth=1.8, label=name)


def _title(views: Sequence[JournalView]) -> str:
    tasks = dict.fromkeys(f"{view.start['task']}, policy {view.start['policy']}" for view in views)
    seeds = sorted({view.start["config"]["run"]["seed"] for view in views})
    return f"{'; '.join(tasks)} · seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
