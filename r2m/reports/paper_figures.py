"""Figures 1, 4, 5 and 6 from runs: a plotly figure each, or the sentence that says why there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

from r2m.metrics import metric
from r2m.reports.document import Plot
from r2m.reports.plots import curves, lines, over_kl, panels, styled
from r2m.reports.render import plain
from r2m.reports.style import COLOURS, INK, OTHER_COLOURS, REST, SCALE, Group, drawn
from r2m.results.assessment import Assessment
from r2m.results.experiment import NEGLIGIBLE, Experiment

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
_PHASES = {  # Fig. 6, from the bottom of a bar to its top
    "time/sample_s": OTHER_COLOURS[3], "time/annotate_s": OTHER_COLOURS[2], "time/policy_s": OTHER_COLOURS[0],
    "time/head_s": OTHER_COLOURS[1],
}  # fmt: skip


def paper_figures(r: Experiment) -> list[Plot]:
    """Fig. 5 has its curves, and rewards over KL: gold, too, where the task has it."""
    pair = [Group(arm, COLOURS[arm], list(r.views(arm).values())) for arm in PAIR if r.views(arm)]
    none = "No run of RLOO or R2M has finished."
    return [
        _similarity(r),
        _over_training(r),
        Plot("conditions", "Fig. 4. Reward with feedback, without, and with noise", conditions(r),
             "R2M's runs, held-out prompts: one batch scored in three ways. Thin: a seed. Bold: their mean. The "
             "paper's Fig. 4 has no printed numbers: with feedback highest, with noise clearly lowest."),
        Plot("learning", "Fig. 5. Reward, loss and KL", curves(pair, CURVES, columns=2),
             "Training prompts. Thin: a seed. Bold: the mean. The paper's Fig. 5 has no printed numbers: R2M's "
             "reward and KL above RLOO's, its loss below."),
        Plot("reward-kl", "Fig. 5. Reward over KL", over_kl(pair, _REWARDS) if drawn(pair, _REWARDS) else none,
             "A point is a round of a run. The paper's Fig. 5 has R2M denser where reward and KL are both high. "
             "The reward of R2M's training is its own, which it trains; gold is what neither trains on."),
        _cost(r),
    ]  # fmt: skip


def conditions(r: Experiment) -> go.Figure | str:
    """Fig. 4: R2M's held-out responses scored in three ways."""
    import plotly.graph_objects as go

    views, figure = list(r.views("R2M").values()), go.Figure()
    for key, (label, colour) in CONDITIONS.items():
        lines(figure, Group(label, colour, views), key)
    if not figure.data:
        return "No run of R2M has an evaluation."
    figure.update_xaxes(title_text="trajectories").update_yaxes(title_text="mean score, held-out prompts")
    return styled(figure, 400)


def cost_bars(measured: Sequence[dict[str, Any]]) -> go.Figure:
    """Fig. 6: memory and time by phase; a bar is the median of an arm's processes, a circle one of them."""
    own = {arm: [m for m in measured if m["arm"] == arm] for arm in PAIR}
    figure, places = panels(("memory/peak_mib", "time/round_s"), "")
    memory, time = places.values()
    figure.add_bar(x=PAIR, y=[median(m["peak_mib"] for m in own[arm]) for arm in PAIR], width=0.5, showlegend=False,
                   marker_color=[COLOURS[arm] for arm in PAIR], opacity=0.85, **memory)  # fmt: skip
    for key, colour in _PHASES.items():
        y = [median(m["phases"].get(key, 0.0) for m in own[arm]) for arm in PAIR]
        figure.add_bar(x=PAIR, y=y, width=0.5, name=metric(key).label, marker_color=colour, **time)
    processes = [m for arm in PAIR for m in own[arm]]
    for place, key in ((memory, "peak_mib"), (time, "round_s")):
        figure.add_scatter(
            x=[m["arm"] for m in processes], y=[m[key] for m in processes], mode="markers", name="a process",
            marker={"color": INK, "size": 7, "symbol": "circle-open"}, showlegend=place is memory, **place,
        )  # fmt: skip
    return figure.update_layout(barmode="stack").update_yaxes(rangemode="tozero")


def _cost(r: Experiment) -> Plot:
    key, title = "cost", "Fig. 6. Cost"
    if r.cost is None:
        return Plot(key, title, "The cost has not been measured.")
    measured = r.cost["measurements"]
    kind = "allocated on the GPU" if r.cost["device"] != "cpu" else "resident, without what imports take"
    return Plot(
        key, title, cost_bars(measured),
        f"{len(measured)} processes by turns, medians over {r.cost['rounds']} rounds each. Bars: the median; "
        f"circles: a process, its whole round. Memory: {kind}. The paper prints no numbers and calls the difference "
        f"negligible; at most {NEGLIGIBLE} times counts as that here, a threshold of ours.",
    )  # fmt: skip


def _similarity(r: Experiment) -> Plot:
    """Fig. 1a: one prompt, hacking responses first."""
    key, title = "similarity", "Fig. 1a. Similarity of hidden states"
    found = _first(r, lambda known: known.similarity)
    if found is None:
        few = "No run of RLOO or R2M has a prompt with enough hacking and enough normal responses to compare."
        return Plot(key, title, few if any(map(r.assessed, PAIR)) else "No run of RLOO or R2M is assessed.")
    arm, seed, known = found
    names = [f"s{i}" for i, _ in enumerate(known.labels, 1)]
    rows = [f"{name} {plain(label)}" for name, label in zip(names, known.labels, strict=True)]
    figure = _heatmaps([known.matrix], [""], names, rows, 470).update_layout(width=580)
    caption = f"One prompt's responses under the trained policy of {arm}, seed {seed}; {known.what}."
    return Plot(key, title, figure, caption)


def _over_training(r: Experiment) -> Plot:
    """Fig. 1b: a query's responses by the policy's checkpoints, a panel each."""
    key, title = "over-training", "Fig. 1b. The same pair over training"
    found = _first(r, lambda known: known.over_training)
    if found is None:
        return Plot(key, title, "No run of RLOO or R2M is assessed with two checkpoints or more.")
    arm, seed, known = found
    steps, titles = list(map(str, known.steps)), [f"response {i}" for i, _ in enumerate(known.pairs, 1)]
    figure = _heatmaps([pair.matrix for pair in known.pairs], titles, steps, steps, 380)
    figure.update_traces(texttemplate="%{z:.2f}", hovertemplate="rounds %{y}, %{x}: %{z:.3f}<extra></extra>")
    figure.update_xaxes(title_text="round").update_yaxes(title_text="round")
    caption = (
        f"Responses to one query under the policy of {arm}, seed {seed}, after so many rounds (0: the supervised "
        f"policy). First and last have a mean similarity of {known.mean[0][-1]:.3f}."
    )
    return Plot(key, title, figure, caption)


def _first(r: Experiment, part: Callable[[Assessment], _T | None]) -> tuple[str, int, _T] | None:
    """The first run of RLOO, else of R2M, whose assessment has the part."""
    known = ((arm, seed, part(a)) for arm in PAIR for seed, a in r.assessed(arm).items())
    return next(((arm, seed, found) for arm, seed, found in known if found is not None), None)


def _heatmaps(
    matrices: Sequence[Sequence[Sequence[float]]],
    titles: Sequence[str],
    x: Sequence[str],
    y: Sequence[str],
    height: int,
) -> go.Figure:
    """Cosines, a panel for each matrix, the first row on top."""
    from plotly.subplots import make_subplots

    figure = make_subplots(1, len(matrices), subplot_titles=titles, horizontal_spacing=0.06)
    for column, matrix in enumerate(matrices, 1):
        figure.add_heatmap(z=matrix, x=x, y=y, coloraxis="coloraxis", row=1, col=column,
                           hovertemplate="%{y}, %{x}: %{z:.3f}<extra></extra>")  # fmt: skip
    bar = {"title": {"text": "cosine", "side": "right"}, "thickness": 14}
    figure.update_layout(coloraxis={"colorscale": SCALE, "cmax": 1, "colorbar": bar})
    styled(figure, height).update_xaxes(type="category", showgrid=False)
    return figure.update_yaxes(type="category", showgrid=False, autorange="reversed")
