"""Figures of the runs: learning curves and reward over KL. A plotly figure each, or a sentence why there is none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from r2m.reports.figures import Group, curves, styled
from r2m.reports.sweep_figures import Views, colours, confirmed_runs, scatter
from r2m.results.readings import trajectory

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from r2m.results.answer import Answer

LEARNING = ("reward/gold", "reward/vanilla", "kl/sequence")


def learning(answer: Answer, views: Views) -> go.Figure | str:
    """Gold, frozen reward and KL of the winner and the baselines."""
    groups = confirmed_runs(answer, views)
    drawn = curves(
        [Group(answer.arm(arm).label, own, groups[arm]) for arm, own in colours(answer, views).items()],
        LEARNING,
    )
    return "No run of the winner or of a baseline has a round yet." if isinstance(drawn, str) else drawn


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
                points = trajectory(view, metric).values()
                x, y = zip(*points, strict=True) if points else ((), ())
                figure.add_scatter(x=x, y=y, mode="lines", opacity=0.35, showlegend=False,
                                   line={"color": colour, "width": 1}, hoverinfo="skip", **place)  # fmt: skip
            arm = answer.arm(name)
            scatter(figure, answer, [arm], arm.label, "circle", [arm.kl], [getattr(arm, key)], colour, size=12,
                    showlegend=column == 1, **place)  # fmt: skip
        figure.update_xaxes(title_text="KL from the reference, nats per sequence", **place)
        figure.update_yaxes(title_text=metric, **place)
    return styled(figure, 430, above=40)
