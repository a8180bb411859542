"""Figures 1, 4, 5 and 6 from runs: a plotly figure each, or the sentence that says why there is none."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

from r2m.reports.curves import COLOURS, OTHER_COLOURS
from r2m.reports.figures import INK, REST, SCALE, Group, curves, styled
from r2m.results.assessment import Assessment
from r2m.results.experiment import Experiment
from r2m.runs.journal import JournalView

if TYPE_CHECKING:
    import plotly.graph_objects as go

PAIR = ("RLOO", "R2M")
T = TypeVar("T")
CONDITIONS = {  # Fig. 4: metric -> label, colour
    "eval/proxy": ("with feedback", COLOURS["R2M"]),
    "eval/vanilla": ("without feedback", COLOURS["RLOO"]),
    "eval/noise": ("with noise", REST),
}
CURVES = ("reward/proxy", "train/policy_loss", "kl/token", "kl/sequence")  # Fig. 5
TITLES = {"train/policy_loss": "Policy loss", "kl/token": "KL from the reference, nats per token"}
SCATTERS = {"reward/proxy": "Reward in training", "reward/gold": "Gold reward"}  # Fig. 5: over KL
PHASES = {  # Fig. 6
    "time/sample_s": ("sampling", OTHER_COLOURS[3]),
    "time/annotate_s": ("annotation", OTHER_COLOURS[2]),
    "time/policy_s": ("policy", OTHER_COLOURS[0]),
    "time/head_s": ("reward head", OTHER_COLOURS[1]),
}


def similarity_matrix(r: Experiment) -> go.Figure | str:
    """Fig. 1a: one prompt, hacking responses first."""
    import plotly.graph_objects as go

    found = _first(r, lambda known: known.similarity)
    if found is None:
        return (
            "No run of RLOO or R2M has a prompt with enough hacking and enough normal responses to compare."
            if any(r.assessed(arm) for arm in PAIR) else "No run of RLOO or R2M is assessed."
        )  # fmt: skip
    _, _, known = found
    rows = [f"s{i} {label}" for i, label in enumerate(known.labels, 1)]
    figure = go.Figure(go.Heatmap(
        z=known.matrix, x=[row.split()[0] for row in rows], y=rows, colorscale=SCALE, zmax=1,
        colorbar={"title": {"text": "cosine", "side": "right"}, "thickness": 14},
        hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>",
    ))  # fmt: skip
    _matrices(styled(figure, 470))
    return figure.update_layout(width=580)


def similarity_caption(r: Experiment) -> str:
    found = _first(r, lambda known: known.similarity)
    if found is None:
        return ""
    arm, seed, known = found
    return f"One prompt's responses under the trained policy of {arm}, seed {seed}; {escape(known.what)}."


def over_training(r: Experiment) -> go.Figure | str:
    """Fig. 1b: a query's responses by the policy's checkpoints, a panel each."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    found = _first(r, lambda known: known.over_training)
    if found is None:
        return "No run of RLOO or R2M is assessed with two checkpoints or more."
    _, _, known = found
    names = list(map(str, known.steps))
    n = len(known.pairs)
    figure = make_subplots(
        1, n, subplot_titles=[f"response {i}" for i in range(1, n + 1)], horizontal_spacing=0.06
    )
    for column, pair in enumerate(known.pairs, 1):
        heat = go.Heatmap(
            z=pair.matrix, x=names, y=names, coloraxis="coloraxis", text=pair.matrix,
            texttemplate="%{text:.2f}", hovertemplate="rounds %{y}, %{x}: %{z:.3f}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(heat, row=1, col=column)
    bar = {"title": {"text": "cosine", "side": "right"}, "thickness": 14}
    figure.update_layout(coloraxis={"colorscale": SCALE, "cmax": 1, "colorbar": bar})
    _matrices(styled(figure, 380), title_text="round", type="category")
    return figure


def over_training_caption(r: Experiment) -> str:
    found = _first(r, lambda known: known.over_training)
    if found is None:
        return ""
    arm, seed, known = found
    apart = known.mean[0][-1]
    return (
        f"Responses to one query under the policy of {arm}, seed {seed}, after so many rounds (0: the supervised "
        f"policy). First and last have a mean similarity of {apart:.3f}."
    )


def conditions(r: Experiment) -> go.Figure | str:
    """Fig. 4: R2M's held-out responses scored in three ways. Thin: a seed. Bold: the mean."""
    import plotly.graph_objects as go

    views = list(r.views("R2M").values())
    shown = {key: style for key, style in CONDITIONS.items() if any(view.series(key)[0] for view in views)}
    if not shown:
        return "No run of R2M has an evaluation."
    figure = go.Figure()
    for key, (label, colour) in shown.items():
        seeds = [dict(zip(*view.series(key), strict=True)) for view in views if view.series(key)[0]]
        for curve in seeds if len(seeds) > 1 else ():
            figure.add_scatter(x=list(curve), y=list(curve.values()), mode="lines", opacity=0.3, showlegend=False,
                               line={"color": colour, "width": 1}, hoverinfo="skip")  # fmt: skip
        steps = sorted(set.intersection(*map(set, seeds)))
        means = [sum(curve[step] for curve in seeds) / len(seeds) for step in steps]
        figure.add_scatter(
            x=steps, y=means, mode="lines+markers", name=label, line={"color": colour, "width": 2.5}
        )
    figure.update_xaxes(title_text="round")
    figure.update_yaxes(title_text="mean score, held-out prompts")
    return styled(figure, 400)


def learning(r: Experiment) -> go.Figure | str:
    """Fig. 5, its curves."""
    groups = [Group(arm, COLOURS[arm], list(r.views(arm).values())) for arm in PAIR]
    figure = curves([group for group in groups if group.views], CURVES, columns=2)
    if not isinstance(figure, str):
        figure.for_each_annotation(lambda title: title.update(text=TITLES.get(title.text, title.text)))
    return figure


def reward_over_kl(r: Experiment) -> go.Figure | str:
    """Fig. 5, its scatter: a point is a round of a run. Gold beside it, where the task has it."""
    from plotly.subplots import make_subplots

    views = [(arm, view) for arm in PAIR for view in r.views(arm).values()]
    panels = {key: title for key, title in SCATTERS.items() if any(view.series(key)[0] for _, view in views)}
    if not panels:
        return "No run of RLOO or R2M has finished."
    figure = make_subplots(1, len(panels), subplot_titles=list(panels.values()), horizontal_spacing=0.08)
    for column, key in enumerate(panels, 1):
        place: dict[str, Any] = {"row": 1, "col": column}
        for arm in PAIR:
            x, y = _points([view for label, view in views if label == arm], key)
            figure.add_scatter(x=x, y=y, mode="markers", name=arm, legendgroup=arm, showlegend=column == 1,
                               marker={"size": 5, "color": COLOURS[arm], "opacity": 0.5},
                               hovertemplate="KL %{x:.3f}, reward %{y:.3f}<extra></extra>", **place)  # fmt: skip
        figure.update_xaxes(title_text="KL, nats per token", **place)
        figure.update_yaxes(title_text=key, **place)
    return styled(figure, 420, above=40)


def cost(r: Experiment) -> go.Figure | str:
    """Fig. 6: memory and time by phase; a bar is the median of an arm's processes, a dot one of them."""
    from plotly.subplots import make_subplots

    if r.cost is None:
        return "The cost has not been measured."
    own = {arm: [m for m in r.cost["measurements"] if m["arm"] == arm] for arm in PAIR}
    figure = make_subplots(
        1, 2, subplot_titles=["Peak memory, MiB", "Time of a round, s"], horizontal_spacing=0.12
    )
    place: dict[str, Any] = {"row": 1, "col": 1}
    peaks = {arm: [m["peak_mib"] for m in seen] for arm, seen in own.items()}
    figure.add_bar(x=list(PAIR), y=[median(peaks[arm]) for arm in PAIR], width=0.5, showlegend=False,
                   marker_color=[COLOURS[arm] for arm in PAIR], opacity=0.85, **place)  # fmt: skip
    for key, (label, colour) in PHASES.items():
        y = [median(m["phases"].get(key, 0.0) for m in own[arm]) for arm in PAIR]
        figure.add_bar(x=list(PAIR), y=y, width=0.5, name=label, marker_color=colour, row=1, col=2)
    rounds = {arm: [m["round_s"] for m in seen] for arm, seen in own.items()}
    for column, values in enumerate((peaks, rounds), 1):
        dots = [(arm, value) for arm in PAIR for value in values[arm]]
        figure.add_scatter(
            x=[arm for arm, _ in dots], y=[value for _, value in dots], mode="markers", name="a process",
            marker={"color": INK, "size": 7, "symbol": "circle-open"}, showlegend=column == 1, row=1, col=column,
        )  # fmt: skip
    figure.update_layout(barmode="stack")
    styled(figure, 400, above=40)
    figure.update_yaxes(rangemode="tozero")
    return figure


def _first(r: Experiment, part: Callable[[Assessment], T | None]) -> tuple[str, int, T] | None:
    """The first run of RLOO, else of R2M, whose assessment has the part."""
    for arm in PAIR:
        for seed, known in r.assessed(arm).items():
            if (found := part(known)) is not None:
                return arm, seed, found
    return None


def _points(views: list[JournalView], key: str) -> tuple[list[float], list[float]]:
    rounds = [m for view in views for m in view.rounds.values() if key in m and "kl/token" in m]
    return [m["kl/token"] for m in rounds], [m[key] for m in rounds]


def _matrices(figure: go.Figure, **axes: Any) -> None:
    """The first row on top."""
    figure.update_yaxes(autorange="reversed", showgrid=False, **axes)
    figure.update_xaxes(showgrid=False, **axes)
