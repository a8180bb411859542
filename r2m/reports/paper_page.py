"""What `r2m paper` leaves: paper.html, one file that needs no network, and the tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from r2m.files import write_whole
from r2m.reports import page
from r2m.reports import paper_figures as figures
from r2m.reports.paper_formats import notes_of, runs_of, to_csv, to_html, to_latex, to_markdown
from r2m.reports.paper_parts import FAILS, HOLDS, OPEN, Judged, Table
from r2m.results.experiment import NEGLIGIBLE, Experiment
from r2m.results.findings import ENOUGH, METHOD
from r2m.results.numbers import number
from r2m.results.readings import cost
from r2m.runs.journal import JournalView

CLASSES = {HOLDS: "better", FAILS: "worse", OPEN: ""}  # of the stylesheet
WRITERS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
SECTIONS = {
    "claims": "The paper's claims, here",
    "tables": "Tables",
    "figures": "Figures",
    "made": "How this was made",
}
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


def write(
    r: Experiment, made: Sequence[Table], judged: Sequence[Judged], folder: Path, command: str
) -> list[Path]:
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
    few = ""
    if len(r.seeds) < ENOUGH:
        few = f"{len(r.seeds)} seeds settle no difference: give --seeds {ENOUGH} or more."
    return page.page(
        f"{escape(r.name)} · R2M",
        f"<h1>{escape(r.name)}: the paper's experiments on the recipe {escape(r.recipe)}</h1>",
        '<p class="meta">Tables 1 to 5 and Figures 1, 4, 5 and 6 from runs of this recipe, beside the paper\'s own '
        "figures, which are of other models and data: levels are not comparable, directions are.</p>",
        page.verdict([summary(judged), _headline(judged), *([few] if few else [])]),
        page.contents(SECTIONS),
        page.section("claims", SECTIONS["claims"], _claims(judged), page.note(escape(RULE))),
        page.section("tables", SECTIONS["tables"], *map(_table, made)),
        page.section("figures", SECTIONS["figures"], *_figures(r)),
        page.section("made", SECTIONS["made"], *_made(r, command)),
    )  # fmt: skip


def _headline(judged: Sequence[Judged]) -> str:
    """What most readers look for: R2M against RLOO."""
    j = next(j for j in judged if j.headline)
    return f"{j.claim}: {j.verdict}. {j.why}"


def _claims(judged: Sequence[Judged]) -> str:
    rows = [
        ("", [
            _wrapped(j.claim, 17), _wrapped(j.source, 8), f'<b class="{CLASSES[j.verdict]}">{j.verdict}</b>',
            _wrapped(j.why, 34),
        ])
        for j in judged
    ]  # fmt: skip
    return page.table(["claim", "source", "here", "numbers"], rows, {0, 1, 2, 3})


def _wrapped(text: str, width: int) -> str:
    """A table's cells do not wrap by themselves. `width`: the least, in em."""
    return f'<div style="white-space:normal;min-width:{width}em">{escape(text)}</div>'


def _table(table: Table) -> str:
    first, *notes = notes_of(table)
    runs = "".join(
        f"<p><b>{escape(label)}</b>: {escape(', '.join(ids))}</p>" for label, ids in runs_of(table).items()
    )
    folded = f"<details><summary>Runs</summary>{runs}</details>" if runs else ""
    files = " ".join(
        f'<a href="tables/table-{table.number}.{kind}">{kind}</a>' for kind in WRITERS
    )  # beside the page, where it was written
    return (
        f"<h3>Table {table.number}. {escape(table.title)}</h3>{page.note(escape(first))}{to_html(table)}"
        + "".join(page.note(escape(note)) for note in notes) + folded + page.note(f"As a file: {files}")
    )  # fmt: skip


def _figures(r: Experiment) -> list[str]:
    cost_caption = _cost_caption(r)
    return [
        page.plot("similarity", "Fig. 1a. Similarity of hidden states", figures.similarity_matrix(r),
                  figures.similarity_caption(r)),
        page.plot("over-training", "Fig. 1b. The same pair over training", figures.over_training(r),
                  figures.over_training_caption(r)),
        page.plot("conditions", "Fig. 4. Reward with feedback, without, and with noise", figures.conditions(r),
                  CAPTIONS["over-time"]),
        page.plot("learning", "Fig. 5. Reward, loss and KL", figures.learning(r), CAPTIONS["learning"]),
        page.plot("reward-kl", "Fig. 5. Reward over KL", figures.reward_over_kl(r), CAPTIONS["reward-kl"]),
        page.plot("cost", "Fig. 6. Cost", figures.cost(r), cost_caption),
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


def _made(r: Experiment, command: str) -> list[str]:
    views = [view for arm in r.settings for view in r.views(arm).values()]
    seconds = sum(cost(view)[1] for view in views)
    facts = {
        "recipe": r.recipe,
        "seeds": ", ".join(map(str, r.seeds)),
        "runs": f"{len(views)} finished, {number(seconds / 3600)} worker-hours",
        **_versions(views),
    }
    listed = "".join(f"<tr><td class='text'>{escape(k)}</td><td class='text'>{escape(v)}</td></tr>"
                     for k, v in facts.items())  # fmt: skip
    rows = [
        ("", [escape(arm), escape(_settings(settings)), escape(", ".join(r.run_ids(arm)) or "none")])
        for arm, settings in r.settings.items()
    ]
    missing = [page.note(f"Not among them: {escape('; '.join(f'{k} ({v})' for k, v in r.missing.items()))}.")]
    return [
        f'<pre class="command">{escape(command)}</pre>',
        f'<div class="scroll"><table><tbody>{listed}</tbody></table></div>',
        page.table(["arm", "settings over the recipe's", "runs"], rows, {0, 1, 2}),
        *(missing if r.missing else []),
    ]


def _versions(views: Sequence[JournalView]) -> dict[str, str]:
    """What the runs' journals say they ran with; more than one where they differ."""
    said: dict[str, dict[str, None]] = {"versions": {}, "commit": {}}
    for view in views:
        versions, git = view.start["versions"], view.start["git"]
        said["versions"][", ".join(f"{name} {version}" for name, version in versions.items())] = None
        said["commit"][str(git.get("commit", "unknown")) + " with changes" * bool(git.get("dirty"))] = None
    return {key: "; ".join(filter(None, values)) for key, values in said.items() if any(values)}


def _settings(settings: Mapping[str, object]) -> str:
    words = {True: "on", False: "off"}
    return ", ".join(
        f"{key}={words[value] if isinstance(value, bool) else value}" for key, value in settings.items()
    )
