"""The answer as a terminal shows it, as one self-contained HTML file, as MLflow's table, and as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import optuna

from r2m.files import made_whole, write_whole
from r2m.reports import page
from r2m.reports import sweep_run_figures as run_figures
from r2m.reports import sweep_study_figures as study_figures
from r2m.reports import sweep_tables as tables
from r2m.reports.sweep_figures import colours, confirmed_runs
from r2m.reports.sweep_terminal import terminal as terminal
from r2m.results.answer import Answer, Ranked
from r2m.results.numbers import finite
from r2m.runs.journal import JournalView

BETTER = {"maximize": "more", "minimize": "less"}
SECTIONS = {
    "confirmation": "Winner and baselines on fresh seeds",
    "ranking": "Ranking",
    "search": "What the search saw",
    "curves": "Learning curves, and reward over KL",
    "commands": "Every arm again",
    "file": "The sweep file",
}


def html(a: Answer, study: optuna.Study, views: Mapping[str, JournalView], sweep_file: str) -> str:
    """One file that needs no network. `sweep_file`: its text. `views`: the runs' journals, by the run's name."""
    own = colours(a, views)
    judged = " and ".join(
        f"{metric} ({BETTER[d]} is better)" for metric, d in zip(a.objectives, a.directions, strict=True)
    )
    kept = f", keeping {' and '.join(a.constraints)}" if a.constraints else ""
    findings = {c.finding for c in a.comparisons}
    colour = findings.pop() if findings in ({"better"}, {"worse"}) else ""
    body = [
        f"<h1>{escape(a.name)}</h1>",
        f'<p class="meta">Judged on held-out prompts by {escape(judged + kept)}. Search on seed {_list(a.seeds)}, '
        f"confirmation on {_list(a.confirm)}.</p>",
        page.verdict(a.verdict, colour),
        tables.tiles(a),
        page.contents(SECTIONS),
        _section("confirmation", *tables.confirmation(a, own)),
        _section("ranking", *tables.ranking(a, own)),
        _section("search", *_search(a, study, views)),
        _section("curves", *_curves(a, views)),
        _section("commands", *_commands(a)),
        _section("file", f"<pre>{escape(sweep_file)}</pre>"),
    ]
    return page.page(f"{escape(a.name)} · R2M sweep", *body)


def write(
    folder: Path, a: Answer, study: optuna.Study, views: Mapping[str, JournalView], sweep_file: str
) -> None:
    """ranking.json, report.html and answer.png of a sweep into its folder, each replaced whole."""
    write_whole(folder / "ranking.json", json.dumps(ranking_table(a)))
    write_whole(folder / "report.html", html(a, study, views, sweep_file))
    with made_whole(folder / "answer.png") as aside:
        picture(a, views, aside)


def ranking_table(a: Answer) -> dict[str, Any]:
    """MLflow's table: {"columns": [...], "data": [[...], ...]}; a number that is not finite is null."""
    keys = tables.params(a)
    fields = ("kl", "gold", "frozen", "violation", "trajectories", "worker_s", "command")
    settings = [key.replace(".", "/") for key in keys]  # MLflow takes a dot for a path into the row
    columns = ["rank", "arm", "label", "state", *a.objectives, "feasible", *fields, *settings]
    data = [
        [i, arm.name, arm.label, arm.state, *arm.values, arm.feasible, *(getattr(arm, f) for f in fields),
         *(arm.params.get(key) for key in keys)]
        for i, arm in enumerate(a.ranking, 1)
    ]  # fmt: skip
    return {"columns": columns, "data": finite(data)}


def picture(a: Answer, views: Mapping[str, JournalView], path: Path) -> None:
    """The curves of the winner and the baselines into a PNG or SVG; nothing where no run has a round yet."""
    from r2m.reports.curves import plot

    groups = confirmed_runs(a, views)
    runs = [(a.arm(arm).label, view) for arm, group in groups.items() for view in group if view.rounds]
    if runs:
        plot(runs, path)


def _section(key: str, *parts: str) -> str:
    return page.section(key, SECTIONS[key], *parts)


def _search(a: Answer, study: optuna.Study, views: Mapping[str, JournalView]) -> list[str]:
    front = []
    if len(a.objectives) > 1:
        caption = "Green: what no other feasible arm equals in every objective and beats in one."
        front = [page.plot("pareto", "Pareto front", study_figures.pareto(a), caption)]
    mind = f" {a.importance_note}" if a.importance and a.importance_note else ""
    share = f"How much each parameter separates the best trials from the rest.{escape(mind)}"
    return [
        *front,
        '<div class="pair">',
        page.plot(
            "history",
            "History",
            study_figures.history(a, views),
            "Every trial in its order; dashed: the baselines.",
        ),
        page.plot("importance", "Importance", study_figures.importance(a), share),
        "</div>",
        page.plot(
            "parallel",
            "Parallel coordinates",
            study_figures.parallel(a, study),
            "A line is a complete trial.",
        ),
        page.plot(
            "slice",
            "Slices",
            study_figures.slices(a, study),
            "A point is a complete trial; open: it breaks a constraint.",
        ),
    ]


def _curves(a: Answer, views: Mapping[str, JournalView]) -> list[str]:
    fresh = any(
        view.start["config"]["run"]["seed"] in a.confirm
        for g in confirmed_runs(a, views).values()
        for view in g
    )
    which = "fresh seeds" if fresh else "the search's own seeds: no fresh one has begun"
    return [
        page.plot("learning", "Learning curves", run_figures.learning(a, views),
              f"On training prompts, {which}. Thin: a seed. Bold: their mean, where all of them have a round."),
        page.plot("reward-kl", "Reward over KL", run_figures.reward_over_kl(a, views),
              "Held-out prompts. A point is where an arm ended in the search; a thin line is the way of a run in "
              "the learning curves. Frozen reward that rises with KL while gold falls is reward hacking."),
    ]  # fmt: skip


def _commands(a: Answer) -> list[str]:
    """The winner's and the baselines' in sight, the others' folded away."""
    first = [a.arm(c.arm) for c in a.confirmation]
    rest = [arm for arm in a.ranking if arm not in first]
    folded = (
        f"<details><summary>{len(rest)} more</summary>{''.join(map(_again, rest))}</details>" if rest else ""
    )
    return [page.note("The first run of each arm, on the search's first seed."), *map(_again, first), folded]


def _again(arm: Ranked) -> str:
    if arm.command is None:
        how = page.note("No run can have these settings.")
    else:
        start, *settings = escape(arm.command).split(" --set ")
        words = " ".join([start, *(f"<span>--set {setting}</span>" for setting in settings)])
        how = f'<pre class="command">{words}</pre>'
    why = page.note(f"It failed: {escape(arm.reason)}") if arm.reason else ""
    return f"<h3>{escape(arm.label)}</h3>{how}{why}"


def _list(seeds: tuple[int, ...]) -> str:
    return ", ".join(map(str, seeds))
