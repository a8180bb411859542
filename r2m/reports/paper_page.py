"""What `r2m paper` leaves: paper.html, one file that needs no network, and the tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r2m.files import write_whole
from r2m.reports import document as doc
from r2m.reports import paper_figures as figures
from r2m.reports.paper_formats import notes_of, runs_of, shown, to_csv, to_latex, to_markdown
from r2m.reports.paper_parts import FAILS, HOLDS, OPEN, Judged, Table
from r2m.reports.render import render
from r2m.results.experiment import NEGLIGIBLE, Experiment
from r2m.results.findings import ENOUGH, METHOD
from r2m.results.numbers import number
from r2m.results.readings import cost
from r2m.runs.journal import JournalView

CLASSES = {HOLDS: "better", FAILS: "worse", OPEN: ""}  # of the style sheet
WRITERS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
RULE = (
    "A claim about a difference holds where five seeds or more, an interval off 0 and p ≤ 0.0625 show it, and does "
    "not hold where they show the opposite. What they cannot tell from 0, or fewer seeds, cannot be judged: that "
    f"nothing was seen does not show that there is nothing. {METHOD}"
)
CAPTIONS = {
    "over-time": "R2M's runs, held-out prompts: one batch scored in three ways. Thin: a seed. Bold: their mean. The "
                 "paper's Fig. 4 has no printed numbers: with feedback highest, with noise clearly lowest.",
    "learning": "Training prompts. Thin: a seed. Bold: the mean. The paper's Fig. 5 has no printed numbers: R2M's "
                "reward and KL above RLOO's, its loss below.",
    "reward-kl": "A point is a round of a run. The paper's Fig. 5 has R2M denser where reward and KL are both high. "
                 "The reward of R2M's training is its own, which it trains; gold is what neither trains on.",
}  # fmt: skip


def write(r: Experiment, made: Sequence[Table], judged: Sequence[Judged], folder: Path, command: str) -> list[Path]:
    """Everything, each file replaced whole. `made`: the tables; `command`: what was typed."""
    texts = {"paper.html": html(r, made, judged, command)}
    texts |= {f"tables/table-{t.number}.{kind}": to(t) for t in made for kind, to in WRITERS.items()}
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_whole(folder / name, text)
    return [folder / name for name in texts]


def summary(judged: Sequence[Judged]) -> str:
    holds, fails, left = ([j.verdict for j in judged].count(v) for v in (HOLDS, FAILS, OPEN))
    return (
        f"Of the paper's {len(judged)} claims, {holds} hold{'s' * (holds == 1)} here, {fails} "
        f"do{'es' * (fails == 1)} not, and {left} cannot be judged."
    )


def html(r: Experiment, made: Sequence[Table], judged: Sequence[Judged], command: str) -> str:
    headline = next(j for j in judged if j.headline)  # what most readers look for
    verdict = [summary(judged), f"{headline.claim}: {headline.verdict}. {headline.why}"]
    if len(r.seeds) < ENOUGH:
        verdict.append(f"{len(r.seeds)} seeds settle no difference: give --seeds {ENOUGH} or more.")
    lead: list[doc.Part] = [
        doc.Note("Tables 1 to 5 and Figures 1, 4, 5 and 6 from runs of this recipe, beside the paper's own figures, "
             "which are of other models and data: levels are not comparable, directions are."),
        doc.Verdict(verdict),
    ]  # fmt: skip
    sections = [
        doc.Section("claims", "The paper's claims, here", [_claims(judged), doc.Note(RULE)]),
        doc.Section("tables", "Tables", [part for table in made for part in _table(table)]),
        doc.Section("figures", "Figures", _figures(r)),
        doc.Section("made", "How this was made", _made(r, command)),
    ]
    title = f"{r.name}: the paper's experiments on the recipe {r.recipe}"
    return render(doc.Page(f"{r.name} · R2M", title, lead, sections))


def _claims(judged: Sequence[Judged]) -> doc.Table:
    rows = [
        ("", [
            doc.Cell(j.claim, kind="wrap"), doc.Cell(j.source, kind="wrap narrow"),
            doc.Cell(j.verdict, kind=f"strong {CLASSES[j.verdict]}"), doc.Cell(j.why, kind="wrap wide"),
        ])
        for j in judged
    ]  # fmt: skip
    return doc.Table(["claim", "source", "here", "numbers"], rows, {0, 1, 2, 3})


def _table(table: Table) -> list[doc.Part]:
    first, *notes = notes_of(table)
    runs = [doc.Text("labelled", ", ".join(ids), label) for label, ids in runs_of(table).items()]
    files = {kind: f"tables/table-{table.number}.{kind}" for kind in WRITERS}  # beside the page
    return [
        doc.Text("heading", f"Table {table.number}. {table.title}"), doc.Note(first), shown(table),
        *map(doc.Note, notes),
        *([doc.Details("Runs", runs)] if runs else []), doc.Note("As a file:", files),
    ]  # fmt: skip


def _figures(r: Experiment) -> list[doc.Part]:
    return [
        doc.Plot("similarity", "Fig. 1a. Similarity of hidden states", *figures.similarity_matrix(r)),
        doc.Plot("over-training", "Fig. 1b. The same pair over training", *figures.over_training(r)),
        doc.Plot("conditions", "Fig. 4. Reward with feedback, without, and with noise", figures.conditions(r),
             CAPTIONS["over-time"]),
        doc.Plot("learning", "Fig. 5. Reward, loss and KL", figures.learning(r), CAPTIONS["learning"]),
        doc.Plot("reward-kl", "Fig. 5. Reward over KL", figures.reward_over_kl(r), CAPTIONS["reward-kl"]),
        doc.Plot("cost", "Fig. 6. Cost", figures.cost(r), _cost_caption(r)),
    ]  # fmt: skip


def _cost_caption(r: Experiment) -> str:
    if r.cost is None:
        return ""
    kind = "allocated on the GPU" if r.cost["device"] != "cpu" else "resident, without what imports take"
    return (
        f"{len(r.cost['measurements'])} processes by turns, medians over {r.cost['rounds']} rounds each. Bars: the "
        f"median; circles: a process, its whole round. Memory: {kind}. The paper prints no numbers and calls the "
        f"difference negligible; at most {NEGLIGIBLE} times counts as that here, a threshold of ours."
    )


def _made(r: Experiment, command: str) -> list[doc.Part]:
    views = [view for arm in r.settings for view in r.views(arm).values()]
    seconds = sum(cost(view)[1] for view in views)
    facts = {
        "recipe": r.recipe,
        "seeds": ", ".join(map(str, r.seeds)),
        "runs": f"{len(views)} finished, {number(seconds / 3600)} worker-hours",
        **_versions(views),
    }
    arms = [
        ("", [arm, ", ".join(f"{key}={doc.setting(value)}" for key, value in settings.items()),
              ", ".join(r.run_ids(arm)) or "none"])
        for arm, settings in r.settings.items()
    ]  # fmt: skip
    missing = "; ".join(f"{run} ({why})" for run, why in r.missing.items())
    return [
        doc.Text("command", command),
        doc.Table([], [("", fact) for fact in facts.items()], {0, 1}),
        doc.Table(["arm", "settings over the recipe's", "runs"], arms, {0, 1, 2}),
        *([doc.Note(f"Not among them: {missing}.")] if missing else []),
    ]


def _versions(views: Sequence[JournalView]) -> dict[str, str]:
    """What the runs' journals say they ran with; more than one where they differ."""
    said: dict[str, dict[str, None]] = {"versions": {}, "commit": {}}
    for view in views:
        versions, git = view.start["versions"], view.start["git"]
        said["versions"][", ".join(f"{name} {version}" for name, version in versions.items())] = None
        said["commit"][str(git.get("commit", "unknown")) + " with changes" * bool(git.get("dirty"))] = None
    return {key: "; ".join(filter(None, values)) for key, values in said.items() if any(values)}
