"""Figures of a sweep: a plotly figure each, or a sentence that says why there is none.

Optuna's own where they show what we have to show; ours also have the pruned trials and the baselines outside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import optuna
from optuna.trial import FrozenTrial, TrialState

from r2m.reports.alarms import mark
from r2m.reports.plots import panels, styled
from r2m.reports.render import plain
from r2m.reports.style import COLOURS, FAINT, INK, REST, SCALE, THIN, WINNER, Group, groups
from r2m.results.answer import LAST, Answer, Ranked
from r2m.results.importance import quiet
from r2m.results.readings import trajectory
from r2m.runs.journal import JournalView

if TYPE_CHECKING:
    import plotly.graph_objects as go

NONE_COMPLETE = "No trial is complete yet: this plot shows complete trials."

Views: TypeAlias = Mapping[str, JournalView]
Arms: TypeAlias = dict[str, Group]
XY: TypeAlias = Callable[[Ranked], tuple[Any, float]]  # x and y


def confirmed(answer: Answer, views: Views) -> Arms:
    """The winner and each baseline by name, with their runs on fresh seeds; on the search's where none has begun."""
    arms = []
    for c in answer.confirmation:
        arm = answer.arm(c.arm)
        found = [views[run] for run in [*c.runs.values()] or arm.runs if run in views]
        arms.append((arm.label, found[0].arm if found else arm.label, found))
    drawn = groups(arms, winner=answer.winner is not None)
    return {c.arm: group for c, group in zip(answer.confirmation, drawn, strict=True)}


def reward_over_kl(answer: Answer, arms: Arms) -> go.Figure | str:
    """Held-out gold and vanilla reward over held-out KL: where each arm ended, and those arms' trajectories."""
    ends = {LAST[field]: field for field in ("gold", "vanilla")
            if any(not math.isnan(getattr(a, field) + a.kl) for a in answer.ranking)}  # fmt: skip
    if not ends:
        return "No arm has an evaluation with its KL yet."
    figure, places = panels(list(ends), "KL from the reference, nats per sequence")
    rest = [arm for arm in answer.ranking if arm.name not in arms]
    for column, (key, field) in enumerate(ends.items()):
        place: dict[str, Any] = {**places[key], "showlegend": column == 0}
        end = partial(_end, field)
        scatter(figure, answer, rest, "other trials", "circle", end, **place)
        for name, group in arms.items():
            for view in group.views:
                x, y = zip(*trajectory(view, key).values() or [((), ())], strict=True)
                line = {"color": group.colour, "width": THIN}
                figure.add_scatter(x=x, y=y, mode="lines", opacity=FAINT, hoverinfo="skip", line=line,
                                   **place | {"showlegend": False})  # fmt: skip
            arm = answer.arm(name)
            scatter(figure, answer, [arm], arm.label, "circle", end, group.colour, 12, **place)
        marks = [(at, group.colour) for group in arms.values() for at in group.alarms_over_kl(key)]
        mark(figure, marks, column == 0, **places[key])
    return figure


def history(answer: Answer, own: Mapping[str, str]) -> go.Figure | str:
    """The first objective by trial, the best so far, and the baselines as lines."""
    import plotly.graph_objects as go

    trials = sorted((a for a in answer.ranking if a.trial is not None), key=lambda a: a.trial or 0)
    shown = [arm for arm in trials if not math.isnan(arm.values[0])]
    if not shown:
        return "No trial has been evaluated yet."
    figure = go.Figure()
    for name, symbol, members in (
        ("complete", "circle", [a for a in shown if a.state == "complete" and a.feasible]),
        ("breaks a constraint", "circle-open", [a for a in shown if a.state == "complete" and not a.feasible]),
        ("stopped early", "x-thin-open", [a for a in shown if a.state == "pruned"]),
        ("running", "diamond-open", [a for a in shown if a.state == "running"]),
    ):
        scatter(figure, answer, members, name, symbol, _in_time)
    if answer.winner is not None:
        scatter(figure, answer, [answer.arm(answer.winner)], "best feasible", "circle", _in_time, WINNER, 12)
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
    for arm_name, colour in own.items():
        arm = answer.arm(arm_name)
        if arm.baseline and not math.isnan(arm.values[0]):
            figure.add_hline(arm.values[0], line={"color": colour, "dash": "dash", "width": 1.5})
            figure.add_scatter(x=[None], y=[None], mode="lines", name=plain(arm.label),
                               line={"color": colour, "dash": "dash"})  # fmt: skip
    figure.update_xaxes(title_text="trial", rangemode="tozero", tickformat="d")
    figure.update_yaxes(title_text=answer.objectives[0])
    return styled(figure, 380)


def importance_bars(answer: Answer) -> go.Figure | str:
    import plotly.graph_objects as go

    if not answer.importance:
        return f"No importance: {answer.importance_note}."
    names, shares = list(answer.importance)[::-1], list(answer.importance.values())[::-1]
    figure = go.Figure().add_bar(
        x=shares, y=[plain(name) for name in names], orientation="h", marker_color=COLOURS["R2M"],
        text=[f"{share:.0%}" for share in shares], textposition="outside", cliponaxis=False,
        hovertemplate="%{y}: %{text}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title_text="share of importance (PED-ANOVA)", tickformat=".0%", range=[0, 1.12 * max(shares)])
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
        scatter(figure, answer, members, name, symbol, _traded, WINNER if members is front else REST)
    by_x = sorted(front, key=lambda a: a.values[1])
    figure.add_scatter(x=[a.values[1] for a in by_x], y=[a.values[0] for a in by_x], mode="lines", showlegend=False,
                       line={"color": WINNER, "width": 1.5, "shape": "hv"}, hoverinfo="skip")  # fmt: skip
    y_title, x_title, *_ = objectives(answer)
    figure.update_xaxes(title_text=x_title).update_yaxes(title_text=y_title)
    return styled(figure, 420)


def objectives(answer: Answer) -> list[str]:
    """Each with what is better of it."""
    better = {"maximize": "more", "minimize": "less"}
    return [f"{name} ({better[d]} is better)" for name, d in zip(answer.objectives, answer.directions, strict=True)]


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


def scatter(
    figure: go.Figure, answer: Answer, arms: Sequence[Ranked], name: str, symbol: str, place: XY,
    colour: str = REST, size: int = 9, **fields: Any,
) -> None:  # fmt: skip
    if arms:
        x, y = zip(*map(place, arms), strict=True)
        figure.add_scatter(
            x=x, y=y, mode="markers", name=plain(name), text=[hover(answer, arm) for arm in arms],
            hovertemplate="%{text}<extra></extra>",
            marker={"symbol": symbol, "size": size, "color": colour, "line": {"width": 1.5, "color": colour}},
            **fields,
        )  # fmt: skip


def _in_time(arm: Ranked) -> tuple[Any, float]:
    return arm.trial, arm.values[0]


def _traded(arm: Ranked) -> tuple[float, float]:
    return arm.values[1], arm.values[0]


def _end(field: str, arm: Ranked) -> tuple[float, float]:
    return arm.kl, getattr(arm, field)


def hover(answer: Answer, arm: Ranked) -> str:
    values = [f"{metric}: {value:.4g}" for metric, value in zip(answer.objectives, arm.values, strict=True)]
    params = [f"{key}: {f'{v:.4g}' if isinstance(v, float) else v}" for key, v in arm.params.items()]
    return "<br>".join([f"<b>{plain(arm.in_search)}</b>", *map(plain, values), *map(plain, params)])
