"""What `r2m paper` leaves: paper.html, one file that needs no network, and the tables as CSV, Markdown and LaTeX."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2m.files import write_whole
from r2m.reports import document as doc
from r2m.reports.paper_figures import paper_figures
from r2m.reports.paper_formats import PaperTable, notes_of, runs_by_row, to_csv, to_latex, to_markdown, to_part
from r2m.reports.render import render
from r2m.results.experiment import Experiment
from r2m.results.numbers import METHOD, number, setting_text
from r2m.results.readings import cost
from r2m.results.statistics import ENOUGH

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be judged"
WRITERS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
ABOUT = (
    "Tables 1 to 5 and Figures 1, 4, 5 and 6 from runs of this recipe, beside the paper's own figures, which are of "
    "other models and data: levels are not comparable, directions are."
)
RULE = (
    "A claim about a difference holds where five seeds or more, an interval off 0 and p ≤ 0.0625 show it, and does "
    "not hold where they show the opposite. What they cannot tell from 0, or fewer seeds, cannot be judged: that "
    f"nothing was seen does not show that there is nothing. {METHOD}"
)


@dataclass(frozen=True)
class Judged:
    """A claim of the paper's. `verdict`: HOLDS, FAILS or OPEN; `why`: the sentence that says so in numbers."""

    claim: str
    source: str
    verdict: str
    why: str
    headline: bool = False  # what most readers look for


def write(
    r: Experiment, made: Sequence[PaperTable], judged: Sequence[Judged], folder: Path, command: str
) -> list[Path]:
    """Everything, each file replaced whole. `made`: the tables; `command`: what was typed."""
    texts = {"paper.html": paper_html(r, made, judged, command)}
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


def paper_html(r: Experiment, made: Sequence[PaperTable], judged: Sequence[Judged], command: str) -> str:
    headline = next(j for j in judged if j.headline)  # what most readers look for
    verdict = [summary(judged), f"{headline.claim}: {headline.verdict}. {headline.why}"]
    if len(r.seeds) < ENOUGH:
        verdict.append(f"{len(r.seeds)} seeds settle no difference: give --seeds {ENOUGH} or more.")
    title = f"{r.name}: the paper's experiments on the recipe {r.recipe}"
    return render(doc.Page(f"{r.name} · R2M", title, [doc.Note(ABOUT), doc.Headline(verdict)], [
        doc.PageSection("claims", "The paper's claims, here", [_claims(judged), doc.Note(RULE)]),
        doc.PageSection("tables", "Tables", [part for table in made for part in _table(table)]),
        doc.PageSection("figures", "Figures", paper_figures(r)),
        doc.PageSection("made", "How this was made", _made(r, command)),
    ]))  # fmt: skip


def _claims(judged: Sequence[Judged]) -> doc.Table:
    colours = {HOLDS: "better", FAILS: "worse", OPEN: ""}
    rows = [
        ("", [doc.Cell(j.claim, kind="wrap"), doc.Cell(j.source, kind="wrap narrow"),
              doc.Cell(j.verdict, kind=f"strong {colours[j.verdict]}"), doc.Cell(j.why, kind="wrap wide")])
        for j in judged
    ]  # fmt: skip
    return doc.Table(["claim", "source", "here", "numbers"], rows, range(4))


def _table(table: PaperTable) -> list[doc.Part]:
    first, *notes = notes_of(table)
    runs = [doc.Text("labelled", ", ".join(ids), label) for label, ids in runs_by_row(table).items()]
    files = {kind: f"tables/table-{table.number}.{kind}" for kind in WRITERS}  # beside the page
    return [
        doc.Text("heading", f"Table {table.number}. {table.title}"), doc.Note(first), to_part(table),
        *map(doc.Note, notes),
        *([doc.Details("Runs", runs)] if runs else []), doc.Note("As a file:", files),
    ]  # fmt: skip


def _made(r: Experiment, command: str) -> list[doc.Part]:
    views = [view for arm in r.settings for view in r.views(arm).values()]
    facts = {
        "recipe": r.recipe,
        "seeds": ", ".join(map(str, r.seeds)),
        "runs": f"{len(views)} finished, {number(sum(cost(view)[1] for view in views) / 3600)} worker-hours",
        "versions": _by_all(", ".join(map(" ".join, view.start["versions"].items())) for view in views),
        "commit": _by_all(_commit(**view.start["git"]) for view in views),
    }
    arms = [
        ("", [arm, ", ".join(f"{key}={setting_text(value)}" for key, value in settings.items()),
              ", ".join(r.run_ids(arm)) or "none"])
        for arm, settings in r.settings.items()
    ]  # fmt: skip
    missing = "; ".join(f"{run} ({why})" for run, why in r.missing.items())
    return [
        doc.Text("command", command),
        doc.Table([], [("", fact) for fact in facts.items() if fact[1]], {0, 1}),
        doc.Table(["arm", "settings over the recipe's", "runs"], arms, {0, 1, 2}),
        *([doc.Note(f"Not among them: {missing}.")] if missing else []),
    ]


def _by_all(said: Iterable[str]) -> str:
    """What runs' journals say; more than one where they differ."""
    return "; ".join(filter(None, dict.fromkeys(said)))


def _commit(commit: str = "unknown", dirty: bool = False, **_: Any) -> str:
    return commit + " with changes" * bool(dirty)
