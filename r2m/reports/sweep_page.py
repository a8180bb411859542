"""A sweep's answer as one self-contained HTML file, and its picture."""

from contextlib import suppress
from pathlib import Path

import optuna

from r2m.errors import UserError
from r2m.reports import document as doc
from r2m.reports import sweep_figures as figures
from r2m.reports import sweep_tables as tables
from r2m.reports.alarms import CAPTION
from r2m.reports.plots import curves
from r2m.reports.render import render
from r2m.reports.sweep_figures import Views
from r2m.results.answer import Answer, Ranked

LEARNING = ("reward/gold", "reward/vanilla", "kl/sequence")


def sweep_html(a: Answer, study: optuna.Study, views: Views, sweep_file: str) -> str:
    """One file that needs no network. `sweep_file`: its text. `views`: the runs' journals, by the run's name."""
    kept = f", keeping {' and '.join(a.constraints)}" if a.constraints else ""
    seeds, fresh = (", ".join(map(str, seeds)) for seeds in (a.seeds, a.confirm))
    arms = figures.confirmed(a, views)
    own = {name: group.colour for name, group in arms.items()}
    means = "Means over the search's seeds at each run's" if len(a.seeds) > 1 else "Each run's"
    lead: list[doc.Part] = [
        doc.Note(f"Judged on held-out prompts by {' and '.join(figures.objectives(a))}{kept}. Search on seed "
             f"{seeds}, confirmation on {fresh}."),
        doc.Headline(a.verdict, doc.colour_of({c.finding for c in a.comparisons})),
        tables.tiles(a),
    ]  # fmt: skip
    optimistic = doc.Note(f"{means} last evaluation. The search chose among these values, so the best one is "
                      "optimistic: the fresh seeds decide.")  # fmt: skip
    sections = [
        doc.PageSection("confirmation", "Winner and baselines on fresh seeds", tables.confirmation(a, own)),
        doc.PageSection("ranking", "Ranking", [optimistic, tables.ranking(a, own)]),
        doc.PageSection("search", "What the search saw", _search(a, study, own)),
        doc.PageSection("curves", "Learning curves, and reward over KL", _curves(a, arms)),
        doc.PageSection("commands", "Every arm again", _commands(a)),
        doc.PageSection("file", "The sweep file", [doc.Text("file", sweep_file)]),
    ]
    return render(doc.Page(f"{a.name} · R2M sweep", a.name, lead, sections))


def picture(a: Answer, views: Views, path: Path) -> None:
    """The curves of the winner and the baselines into a PNG or SVG; nothing where no run has a round yet."""
    from r2m.reports.curves import plot

    arms = [group for group in figures.confirmed(a, views).values() if any(v.rounds for v in group.views)]
    with suppress(UserError):  # none of what is drawn yet
        plot(arms, path)


def _search(a: Answer, study: optuna.Study, own: tables.Colours) -> list[doc.Part]:
    mind = f" {a.importance_note}" if a.importance and a.importance_note else ""
    front = doc.Plot("pareto", "Pareto front", figures.pareto(a),
                 "Green: what no other feasible arm equals in every objective and beats in one."
                 ) if len(a.objectives) > 1 else None  # fmt: skip
    return [
        *([front] if front else []),
        doc.Beside([
            doc.Plot("history", "History", figures.history(a, own),
                 "Every trial in its order; dashed: the baselines."),
            doc.Plot("importance", "Importance", figures.importance_bars(a),
                 f"How much each parameter separates the best trials from the rest.{mind}"),
        ]),
        doc.Plot("parallel", "Parallel coordinates", figures.parallel(a, study), "A line is a complete trial."),
        doc.Plot("slice", "Slices", figures.slices(a, study), "A complete trial each; open: it breaks a constraint."),
    ]  # fmt: skip


def _curves(a: Answer, arms: figures.Arms) -> list[doc.Part]:
    fresh = any(view.seed in a.confirm for group in arms.values() for view in group.views)
    which = "fresh seeds" if fresh else "the search's own seeds: no fresh one has begun"
    learning = curves(list(arms.values()), LEARNING)
    if isinstance(learning, str):
        learning = "No run of the winner or of a baseline has a round yet."
    return [
        doc.Plot("learning", "Learning curves", learning,
             f"On training prompts, {which}. Thin: a seed. Bold: their mean, where all of them have a round. "
             f"{CAPTION}"),
        doc.Plot("reward-kl", "Reward over KL", figures.reward_over_kl(a, arms),
             "Held-out prompts. A point is where an arm ended in the search; a thin line is the trajectory of a run "
             "in the learning curves. Vanilla reward that rises with KL while gold falls is reward hacking."),
    ]  # fmt: skip


def _commands(a: Answer) -> list[doc.Part]:
    """The winner's and the baselines' in sight, the others' folded away."""
    first = [a.arm(c.arm) for c in a.confirmation]
    rest = [arm for arm in a.ranking if arm not in first]
    shown = [part for arm in first for part in _again(arm)]
    folded = [doc.Details(f"{len(rest)} more", [part for arm in rest for part in _again(arm)])] if rest else []
    return [doc.Note("The first run of each arm, on the search's first seed."), *shown, *folded]


def _again(arm: Ranked) -> list[doc.Part]:
    how = doc.Text("command", arm.command) if arm.command is not None else doc.Note("No run can have these settings.")
    why = [doc.Note(f"It {'failed' if arm.state == 'failed' else 'was stopped'}: {arm.reason}")] if arm.reason else []
    return [doc.Text("heading", arm.label), how, *why]
