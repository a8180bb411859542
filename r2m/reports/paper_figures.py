"""Figures 1, 4, 5 and 6 from runs: a plotly figure each, or the sentence that says why there is none."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

from r2m.metrics import metric
from r2m.reports.plots import curves, lines, over_kl, panels, styled
from r2m.reports.render import plain
from r2m.reports.style import COLOURS, INK, OTHER_COLOURS, REST, SCALE, Group, drawn
from r2m.results.assessment import Assessment
from r2m.results.experiment import Experiment

if TYPE_CHECKING:
    import plotly.graph_objects as go

_T = TypeVar("_T")
PAIR = ("RLOO", "R2M")
CONDITIONS = {  # Fig. 4: metric -> label, colour
    "eval/proxy": ("with feedback", COLOURS["R2M"]),
    "eval/vanilla": ("without feedback", COLOURS["RLOO"]),
    "eval/noise": ("with noise", REST),
}
CURVES = ("reward/proxy", "train/policy_loss", "kl/token", "kl/sequence")  # Fig. 5
_REWARDS = ("reward/proxy", "reward/gold")  # Fig. 5: over KL
_PHASES = dict(zip(  # Fig. 6
    ("time/sample_s", "time/annotate_s", "time/policy_s", "time/head_s"),
    (OTHER_COLOURS[3], OTHER_COLOURS[2], OTHER_COLOURS[0], OTHER_COLOURS[1]), strict=True,
))  # fmt: skip
COSINE = {"title": {"text": "cosine", "side": "right"}, "thickness": 14}

Captioned = tuple["go.Figure | str", str]


def similarity_matrix(r: Experiment) -> Captioned:
    """Fig. 1a: one prompt, hacking responses first; and its caption."""
    import plotly.graph_objects as go

    found = _first(r, lambda known: known.similarity)
    if found is None:
        if any(r.assessed(arm) for arm in PAIR):
            return (
                "No run of RLOO or R2M has a prompt with enough hacking and enough normal responses to compare.",
                "",
            )
        return "No run of RLOO or R2M is assessed.", ""
    arm, seed, known = found
    rows = [f"s{i} {plain(label)}" for i, label in enumerate(known.labels, 1)]
    figure = go.Figure(go.Heatmap(
        z=known.matrix, x=[row.split()[0] for row in rows], y=rows, colorscale=SCALE, zmax=1, colorbar=COSINE,
        hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>",
    ))  # fmt: skip
    caption = f"One prompt's responses under the trained policy of {arm}, seed {seed}; {known.what}."
    return _matrices(styled(figure, 470)).update_layout(width=580), caption


def over_training(r: Experiment) -> Captioned:
    """Fig. 1b: a query's responses by the policy's checkpoints, a panel each; and its caption."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    found = _first(r, lambda known: known.over_training)
    if found is None:
        return "No run of RLOO or R2M is assessed with two checkpoints or more.", ""
    arm, seed, known = found
    steps = list(map(str, known.steps))
    titles = [f"response {i}" for i, _ in enumerate(known.pairs, 1)]
    figure = make_subplots(1, len(titles), subplot_titles=titles, horizontal_spacing=0.06)
    for column, pair in enumerate(known.pairs, 1):
        heat = go.Heatmap(
            z=pair.matrix, x=steps, y=steps, coloraxis="coloraxis", text=pair.matrix,
            texttemplate="%{text:.2f}", hovertemplate="rounds %{y}, %{x}: %{z:.3f}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(heat, row=1, col=column)
    figure.update_layout(coloraxis={"colorscale": SCALE, "cmax": 1, "colorbar": COSINE})
    caption = (
        f"Responses to one query under the policy of {arm}, seed {seed}, after so many rounds (0: the supervised "
        f"policy). First and last have a mean similarity of {known.mean[0][-1]:.3f}."
    )
    return _matrices(styled(figure, 380), title_text="round", type="category"), caption


def conditions(r: Experiment) -> go.Figure | str:
    """Fig. 4: R2M's held-out responses scored in three ways."""
    import plotly.graph_objects as go

    views, figure = list(r.views("R2M").values()), go.Figure()
    for key, (label, colour) in CONDITIONS.items():
        lines(figure, Group(label, colour, views), key)
    if not figure.data:
        return "No run of R2M has an evaluation."
    figure.update_xaxes(title_text="trajectories")
    figure.update_yaxes(title_text="mean score, held-out prompts")
    return styled(figure, 400)


def learning(r: Experiment) -> go.Figure | str:
    """Fig. 5, its curves."""
    return curves(_pair(r), CURVES, columns=2)


def reward_over_kl(r: Experiment) -> go.Figure | str:
    """Fig. 5, its scatter: a point is a round of a run. Gold beside it, where the task has it."""
    return over_kl(_pair(r), _REWARDS) if drawn(_pair(r), _REWARDS) else "No run of RLOO or R2M has finished."


def cost(r: Experiment) -> go.Figure | str:
    """Fig. 6: memory and time by phase; a bar is the median of an arm's processes, a dot one of them."""
    if r.cost is None:
        return "The cost has not been measured."
    own = {arm: [m for m in r.cost["measurements"] if m["arm"] == arm] for arm in PAIR}
    figure, places = panels(("memory/peak_mib", "time/round_s"), "")
    memory, time = places.values()
    peaks = {arm: [m["peak_mib"] for m in seen] for arm, seen in own.items()}
    figure.add_bar(x=list(PAIR), y=[median(peaks[arm]) for arm in PAIR], width=0.5, showlegend=False,
                   marker_color=[COLOURS[arm] for arm in PAIR], opacity=0.85, **memory)  # fmt: skip
    for key, colour in _PHASES.items():
        y = [median(m["phases"].get(key, 0.0) for m in own[arm]) for arm in PAIR]
        figure.add_bar(x=list(PAIR), y=y, width=0.5, name=metric(key).label, marker_color=colour, **time)
    rounds = {arm: [m["round_s"] for m in seen] for arm, seen in own.items()}
    for place, values in ((memory, peaks), (time, rounds)):
        dots = [(arm, value) for arm in PAIR for value in values[arm]]
        figure.add_scatter(
            x=[arm for arm, _ in dots], y=[value for _, value in dots], mode="markers", name="a process",
            marker={"color": INK, "size": 7, "symbol": "circle-open"}, showlegend=place is memory, **place,
        )  # fmt: skip
    figure.update_layout(barmode="stack")
    figure.update_yaxes(rangemode="tozero")
    return figure


def _pair(r: Experiment) -> list[Group]:
    return [Group(arm, COLOURS[arm], list(r.views(arm).values())) for arm in PAIR if r.views(arm)]


def _first(r: Experiment, part: Callable[[Assessment], _T | None]) -> tuple[str, int, _T] | None:
    """The first run of RLOO, else of R2M, whose assessment has the part."""
    for arm in PAIR:
        for seed, known in r.assessed(arm).items():
            if (found := part(known)) is not None:
                return arm, seed, found
    return None


def _matrices(figure: go.Figure, **axes: Any) -> go.Figure:
    """The first row on top."""
    figure.update_yaxes(autorange="reversed", showgrid=False, **axes)
    return figure.update_xaxes(showgrid=False, **axes)
