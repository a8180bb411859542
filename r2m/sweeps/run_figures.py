"""Figures of the runs: learning curves and reward over KL. A plotly figure each, or a sentence why there is none."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

from r2m.reporting.curves import PANELS
from r2m.sweeps.figure_style import Views, colours, confirmed_runs, scatter, styled
from r2m.tracking.journal import JournalView

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from r2m.sweeps.answer import Answer

LEARNING = ("reward/gold", "reward/vanilla", "kl/sequence")


def learning(answer: Answer, views: Views) -> go.Figure | str:
    """Gold, frozen reward and KL over the trajectories seen, which arms of another K share, unlike rounds."""
    from plotly.subplots import make_subplots

    groups = confirmed_runs(answer, views)
    panels = [key for key in LEARNING if any(v.series(key)[0] for runs in groups.values() for v in runs)]
    if not panels:
        return "No run of the winner or of a baseline has a round yet."
    figure = make_subplots(
        1, len(panels), subplot_titles=[PANELS[key][0] for key in panels], horizontal_spacing=0.07
    )
    for arm, colour in colours(answer, views).items():
        label = escape(answer.arm(arm).label)
        for column, key in enumerate(panels, 1):
            curves = [curve for view in groups[arm] if (curve := _curve(view, key))]
            line = {"color": colour}
            for curve in curves if len(curves) > 1 else ():
                figure.add_scatter(x=list(curve), y=list(curve.values()), mode="lines", opacity=0.3, showlegend=False,
                                   line=line | {"width": 1}, hoverinfo="skip", row=1, col=column)  # fmt: skip
            if curves:
                steps = sorted(set.intersection(*map(set, curves)))
                means = [math.fsum(curve[step] for curve in curves) / len(curves) for step in steps]
                figure.add_scatter(x=steps, y=means, mode="lines", name=label, legendgroup=arm, row=1, col=column,
                                   line=line | {"width": 2.5}, showlegend=column == 1)  # fmt: skip
    for column, key in enumerate(panels, 1):
        figure.update_yaxes(title_text=PANELS[key][1], row=1, col=column)
        figure.update_xaxes(title_text="trajectories", row=1, col=column)
    return styled(figure, 400, above=40)


def reward_over_kl(answer: Answer, views: Views) -> go.Figure | str:
    """Held-out gold and frozen reward over held-out KL: where each arm ended, and the way of the confirmed ones."""
    from plotly.subplots import make_subplots

    panels = {"gold": ("eval/gold", "Gold reward"), "frozen": ("eval/vanilla", "Frozen reward model")}
    panels = {
        key: panel
        for key, panel in panels.items()
        if any(not math.isnan(getattr(a, key) + a.kl) for a in answer.ranking)
    }
    if not panels:
        return "No arm has an evaluation with its KL yet."
    figure = make_subplots(
        1, len(panels), subplot_titles=[title for _, title in panels.values()], horizontal_spacing=0.08
    )
    own, groups = colours(answer, views), confirmed_runs(answer, views)
    for column, (key, (metric, _)) in enumerate(panels.items(), 1):
        place: dict[str, Any] = {"row": 1, "col": column}
        rest = [a for a in answer.ranking if a.name not in own]
        scatter(figure, answer, rest, "other trials", "circle", [a.kl for a in rest], [getattr(a, key) for a in rest],
                showlegend=column == 1, **place)  # fmt: skip
        for name, colour in own.items():
            for view in groups[name]:
                points = [m for m in view.rounds.values() if metric in m and "eval/kl_sequence" in m]
                x, y = [m["eval/kl_sequence"] for m in points], [m[metric] for m in points]
                figure.add_scatter(x=x, y=y, mode="lines", opacity=0.35, showlegend=False,
                                   line={"color": colour, "width": 1}, hoverinfo="skip", **place)  # fmt: skip
            arm = answer.arm(name)
            scatter(figure, answer, [arm], arm.label, "circle", [arm.kl], [getattr(arm, key)], colour, size=12,
                    showlegend=column == 1, **place)  # fmt: skip
        figure.update_xaxes(title_text="KL from the reference, nats per sequence", **place)
        figure.update_yaxes(title_text=metric, **place)
    return styled(figure, 430, above=40)


def _curve(view: JournalView, key: str) -> dict[int, float]:
    a = view.start["config"]["algorithm"]
    steps, values = view.series(key)
    return {step * a["queries"] * a["responses"]: value for step, value in zip(steps, values, strict=True)}
