"""Figures of the search: a plotly figure each, or a sentence that says why there is none.

Optuna's own where they show what we have to show; ours also have the pruned trials and the baselines outside it.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial, TrialState

from r2m.reports.curves import COLOURS
from r2m.reports.figures import INK, REST, SCALE, styled
from r2m.reports.sweep_figures import WINNER, Views, colours, scatter
from r2m.results.importance import quiet

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from r2m.results.answer import Answer

NONE_COMPLETE = "No trial is complete yet: this plot shows complete trials."


def history(answer: Answer, views: Views) -> go.Figure | str:
    """The first objective by trial, the best so far, and the baselines as lines."""
    import plotly.graph_objects as go

    trials = sorted((a for a in answer.ranking if a.trial is not None), key=lambda a: a.trial or 0)
    shown = [arm for arm in trials if not math.isnan(arm.values[0])]
    if not shown:
        return "No trial has been evaluated yet."
    figure = go.Figure()
    for name, symbol, members in (
        ("complete", "circle", [a for a in shown if a.state == "complete" and a.feasible]),
        (
            "breaks a constraint",
            "circle-open",
            [a for a in shown if a.state == "complete" and not a.feasible],
        ),
        ("stopped early", "x-thin-open", [a for a in shown if a.state == "pruned"]),
        ("running", "diamond-open", [a for a in shown if a.state == "running"]),
    ):
        scatter(
            figure, answer, members, name, symbol, [a.trial for a in members], [a.values[0] for a in members]
        )
    if answer.winner is not None:
        best_arm = answer.arm(answer.winner)
        place = [best_arm.trial], [best_arm.values[0]]
        scatter(figure, answer, [best_arm], "best feasible", "circle", *place, WINNER, size=12)
    best, steps = None, []
    sign = 1 if answer.directions[0] == "maximize" else -1
    for arm in trials:
        if arm.state == "complete" and arm.feasible and (best is None or sign * arm.values[0] > sign * best):
            best = arm.values[0]
        if best is not None:
            steps.append((arm.trial, best))
    if steps:
        x, y = zip(*steps, strict=True)
        figure.add_scatter(
            x=x, y=y, mode="lines", name="best so far", line={"color": WINNER, "shape": "hv", "width": 2}
        )
    for arm_name, colour in colours(answer, views).items():
        arm = answer.arm(arm_name)
        if arm.baseline and not math.isnan(arm.values[0]):
            figure.add_hline(arm.values[0], line={"color": colour, "dash": "dash", "width": 1.5})
            figure.add_scatter(x=[None], y=[None], mode="lines", name=escape(arm.label),
                               line={"color": colour, "dash": "dash"})  # fmt: skip
    figure.update_xaxes(title_text="trial", rangemode="tozero", tickformat="d")
    figure.update_yaxes(title_text=answer.objectives[0])
    return styled(figure, 380)


def importance(answer: Answer) -> go.Figure | str:
    import plotly.graph_objects as go

    if not answer.importance:
        return f"No importance: {answer.importance_note}."
    names, shares = list(answer.importance)[::-1], list(answer.importance.values())[::-1]
    figure = go.Figure(
        go.Bar(
            x=shares, y=[escape(name) for name in names], orientation="h", marker_color=COLOURS["R2M"],
            text=[f"{share:.0%}" for share in shares], textposition="outside", cliponaxis=False,
            hovertemplate="%{y}: %{text}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_xaxes(
        title_text="share of importance (PED-ANOVA)", tickformat=".0%", range=[0, 1.12 * max(shares)]
    )
    figure.update_yaxes(automargin=True, showgrid=False)
    return styled(figure, max(220, 90 + 42 * len(names)))


def parallel(answer: Answer, study: optuna.Study) -> go.Figure | str:
    if (why := _nothing(study)) is not None:
        return why
    with quiet():
        name = answer.objectives[0]
        figure = optuna.visualization.plot_parallel_coordinate(_named(study, answer), target_name=name)
    figure.update_traces(marker={"colorscale": SCALE}, selector={"mode": "markers"})
    figure.update_traces(opacity=0.85, line={"width": 1.7}, selector={"mode": "lines"})
    return styled(figure, 420)


def slices(answer: Answer, study: optuna.Study) -> go.Figure | str:
    if (why := _nothing(study)) is not None:
        return why
    with quiet():
        first = None if len(answer.objectives) == 1 else _first
        figure = optuna.visualization.plot_slice(study, target=first, target_name=answer.objectives[0])
    figure.update_traces(marker={"colorscale": SCALE, "size": 8, "line": {"width": 0.5, "color": INK}},
                         selector={"name": "Feasible Trial"})  # fmt: skip
    figure.update_traces(marker={"color": "white", "line": {"width": 1, "color": REST}, "size": 8},
                         selector={"name": "Infeasible Trial"})  # fmt: skip
    figure.update_xaxes(nticks=5, exponentformat="e", selector={"type": "log"})
    n = len({name for trial in study.get_trials(deepcopy=False) for name in trial.params})
    figure.update_layout(width=220 * n if n > 5 else None)  # wider than the page: its box scrolls
    return styled(figure, 340)


def pareto(answer: Answer) -> go.Figure | str:
    """The first two objectives; the front as a line."""
    import plotly.graph_objects as go

    complete = [a for a in answer.ranking if a.state == "complete"]
    if not complete:
        return NONE_COMPLETE
    figure = go.Figure()
    front = [answer.arm(name) for name in answer.front]
    rest = [a for a in complete if a.feasible and a.name not in answer.front]
    for name, symbol, members in (
        ("on the front", "circle", front),
        ("dominated", "circle", rest),
        ("breaks a constraint", "circle-open", [a for a in complete if not a.feasible]),
    ):
        scatter(figure, answer, members, name, symbol, [a.values[1] for a in members], [a.values[0] for a in members],
                WINNER if members is front else REST)  # fmt: skip
    by_x = sorted(front, key=lambda a: a.values[1])
    figure.add_scatter(x=[a.values[1] for a in by_x], y=[a.values[0] for a in by_x], mode="lines", showlegend=False,
                       line={"color": WINNER, "width": 1.5, "shape": "hv"}, hoverinfo="skip")  # fmt: skip
    better = ["more is better" if d == "maximize" else "less is better" for d in answer.directions]
    figure.update_xaxes(title_text=f"{answer.objectives[1]} ({better[1]})")
    figure.update_yaxes(title_text=f"{answer.objectives[0]} ({better[0]})")
    return styled(figure, 420)


def _first(trial: FrozenTrial) -> float:
    return trial.values[0]


def _named(study: optuna.Study, answer: Answer) -> optuna.Study:
    """Its complete trials in memory, under our names of the objectives: setting them in the study writes to it."""
    copy = optuna.create_study(directions=study.directions)
    copy.add_trials(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    copy.set_metric_names(list(answer.objectives))
    return copy


def _nothing(study: optuna.Study) -> str | None:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return NONE_COMPLETE
    return None if any(t.params for t in complete) else "The complete trials have no parameters."
