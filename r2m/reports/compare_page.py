"""`r2m compare` as one self-contained HTML file and in a terminal: each setup's answer, numbers, curves, texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from r2m.metrics import metric
from r2m.reports import document as doc
from r2m.reports.plots import curves, over_kl
from r2m.reports.render import render
from r2m.reports.style import Group, groups
from r2m.reports.table import rich_table
from r2m.results.comparison import COLUMNS, SECONDS, Comparison, Difference
from r2m.results.comparison_text import sentences, word
from r2m.results.numbers import METHOD, decimals, estimate_cells
from r2m.results.readings import KL
from r2m.results.statistics import Estimate
from r2m.results.texts import ArmText, picks, prompt_text, texts_of

if TYPE_CHECKING:
    from rich.console import Group as Printed

DRAWN = 12  # arms in the figures, and in a terminal
READ = 6  # arms whose texts are shown
LENGTH = "eval/response_tokens"  # for which 80 columns have no room
PLACES = {KL: 2, LENGTH: 2, SECONDS: 1}  # decimals: 3 of the others
TRAINING = ("reward/gold", "reward/vanilla", "reward/proxy", "kl/sequence")
HELD_OUT = ("eval/gold", "eval/vanilla", "eval/win_rate", KL)
_REWARDS = ("reward/proxy", "reward/vanilla", "reward/gold")  # over KL: the paper's reward is the proxy


def compare_html(title: str, comparisons: Sequence[Comparison], notes: Sequence[str]) -> str:
    """One file that needs no network. `notes`: sentences on what was left out."""
    sections = [doc.PageSection(f"setup-{i}", c.setup, _setup(i, c)) for i, c in enumerate(comparisons)]
    return render(doc.Page(f"{title} · R2M", title, [*map(doc.Note, notes)], sections))


def compare_terminal(c: Comparison) -> Printed:
    """To be printed by a rich console of 80 columns."""
    from rich.console import Group as Printed
    from rich.text import Text

    headline, *rest = sentences(c)
    means = _short_means(c)
    parts: list[Any] = [Text(c.setup, style="bold"), rich_table(means, most=DRAWN, whole=range(1, len(means.head)))]
    if len(c.rows) > DRAWN:
        parts.append(Text(f"... {len(c.rows) - DRAWN} more"))
    if c.differences:
        parts.append(rich_table(_short_differences(c)))
    return Printed(*parts, Text(headline, style="bold"), *map(Text, rest))


def _setup(number: int, c: Comparison) -> list[doc.Part]:
    drawn = groups((row.arm.label, row.arm.kind, row.arm.runs) for row in c.rows[:DRAWN])
    few = f" The first {DRAWN} arms of the table." if len(c.rows) > DRAWN else ""
    found = {d.estimate.finding for d in c.differences if d.metric == c.metric and not d.matched}
    differences: list[doc.Part] = [
        _differences(c, drawn),
        doc.Note("Difference: arm minus baseline on the same seed. The same KL: where both runs first reach the "
                 f"largest held-out KL that both of them reach, interpolated between evaluations. {METHOD}"),
    ]  # fmt: skip
    return [
        doc.Headline(sentences(c), doc.colour_of(found)),
        _means(c, drawn),
        doc.Note("Each run's last evaluation, and what it changed since the first: mean over the seeds of finished "
             "runs, its 95 % interval below. Grey: none has finished, as far as they have come. Worker s: seconds of "
             "a run, times its workers."),
        *(differences if c.differences else []),
        doc.Plot(f"training-{number}", "In training", curves(drawn, TRAINING, columns=2),
             f"On training prompts. Thin: a seed. Bold: their mean, where all of them have a round.{few}"),
        doc.Plot(f"held-out-{number}", "On held-out prompts", curves(drawn, HELD_OUT, columns=2),
             "The same draws for every run. The vanilla reward that rises while gold falls is reward hacking."),
        doc.Plot(f"reward-kl-{number}", "Reward over KL", over_kl(drawn, _REWARDS),
             "A point is a training round. The proxy of an arm with feedback is a scale of its own."),
        doc.Text("heading", "Texts"),
        *_texts(c),
    ]  # fmt: skip


def _means(c: Comparison, groups: Sequence[Group]) -> doc.Table:
    """Each arm, its runs, and its means with their intervals below."""
    shown = _shown(c)
    gain = [c.metric] if c.metric and any(c.metric in row.gain for row in c.rows) else []
    head = ["arm", "runs", *map(_name, shown), *(f"change of\n{_name(key)}" for key in gain)]
    rows = [
        ("dim" if row.so_far else "", [
            _label(row.arm.label, groups),
            doc.Cell(row.status, f"seed{'s' * (len(row.arm.runs) > 1)} {row.arm.seeds}"),
            *(_estimate(key, row.values.get(key)) for key in shown),
            *(_estimate(key, row.gain.get(key)) for key in gain),
        ])
        for row in c.rows
    ]  # fmt: skip
    return doc.Table(head, rows, {0, 1})


def _short_means(c: Comparison) -> doc.Table:
    """What 80 columns have room for: the status below the label, shorter numbers, no interval of the cost."""
    shown = [key for key in _shown(c) if key != LENGTH]
    rows = []
    for row in c.rows:
        which = "baseline, " if row is c.rows[0] and len(c.rows) > 1 else ""
        cells = [_estimate(key, row.values.get(key), fewer=1) for key in shown]
        short = [doc.Cell(e.text, "" if key == SECONDS else e.below.replace(" to ", "…"))
                 for key, e in zip(shown, cells, strict=True)]  # fmt: skip
        rows.append(("", [doc.Cell(_lines(row.arm.label), which + row.status), *short]))
    head = [_name(key).removesuffix(", nats").replace("worker s", "worker\ns") for key in shown]
    return doc.Table(["arm", *head], rows)


def _differences(c: Comparison, groups: Sequence[Group]) -> doc.Table:
    head = [f"against {c.baseline}", "what", "pairs", "mean difference", "95 % interval", "p", "finding", "its KL",
            "baseline's KL"]  # fmt: skip
    rows: list[doc.Line] = []
    for row in c.rows:
        mine = [d for d in c.differences if d.arm == row.arm.label]
        for d in mine:
            arm = _label(d.arm, groups) if d is mine[0] else ""
            finding = doc.Cell(word(d.metric, d.estimate.finding), kind=d.estimate.finding)
            cells = [arm, *_numbers(d), finding, *(decimals(kl, 2) for kl in d.kl)]
            rows.append(("" if d is mine[-1] else "more", cells))
    return doc.Table(head, rows, {0, 1, 6})


def _short_differences(c: Comparison) -> doc.Table:
    """An arm's below its label."""
    rows = []
    for row in c.rows[:DRAWN]:
        mine = [[f" {what}", *cells, word(d.metric, d.estimate.finding)]
                for d in c.differences if d.arm == row.arm.label for what, *cells in [_numbers(d)]]  # fmt: skip
        rows += [("", cells) for cells in ([[_lines(row.arm.label), *[""] * 5], *mine] if mine else [])]
    return doc.Table(["arm − baseline", "n", "mean", "95 % interval", "p", "finding"], rows)


def _texts(c: Comparison) -> list[doc.Part]:
    few = f" The first {READ} arms of the table." if len(c.rows) > READ else ""
    parts: list[doc.Part] = [
        doc.Note("Of the samples in the runs' journals and, of runs that r2m evaluate has assessed, of held-out "
             f"prompts. Gap: proxy less gold, each in standard deviations over the arm's texts.{few}")
    ]  # fmt: skip
    for row in c.rows[:READ]:
        chosen = picks(texts_of(row.arm)).items()
        inner = [part for title, texts in chosen for part in (doc.Text("labelled", "", title), _table(texts))]
        none = doc.Note("No texts in its journals yet (run.sample_every).")
        parts.append(doc.Details(row.arm.label, inner or [none], open=row is c.rows[0]))
    return parts


def _table(texts: Sequence[ArmText]) -> doc.Table:
    rows: list[doc.Line] = [
        ("", [
            doc.Cell(prompt_text(t.prompt), kind="said"), doc.Cell(t.response, kind="said"),
            *(decimals(value, 2) for value in (t.proxy, t.vanilla, t.gold, t.gap)), t.run,
            "end" if t.round is None else str(t.round),
        ])
        for t in texts
    ]  # fmt: skip
    rewards = [metric(f"reward/{name}").label for name in ("proxy", "vanilla", "gold")]
    return doc.Table(["prompt", "response", *rewards, "gap", "run", "round"], rows, {0, 1, 6})


def _shown(c: Comparison) -> list[str]:
    return [key for key in (*COLUMNS, SECONDS) if any(key in row.values for row in c.rows)]


def _name(key: str) -> str:
    """A column's heading."""
    return {SECONDS: "worker s", KL: "KL, nats"}.get(key) or metric(key).label


def _lines(label: str) -> str:
    """Its settings on lines of their own: a column as wide as a line would leave the others no room."""
    kind, dot, settings = label.partition(" · ")
    return kind + (dot and "\n") + settings.replace(", ", "\n")


def _label(text: str, groups: Sequence[Group]) -> doc.Cell:
    """An arm's, with the colour that its lines have."""
    dot = next(((group.colour, group.dash != "solid") for group in groups if group.label == text), ("", False))
    return doc.Cell(text, "", "label", "", *dot)


def _numbers(d: Difference) -> list[str]:
    """What it is of, its pairs, mean, interval and p."""
    what = f"{_name(d.metric)} at {'same KL' if d.matched else 'end'}"
    return [what, str(d.estimate.n), *estimate_cells(d.estimate)]


def _estimate(key: str, e: Estimate | None, fewer: int = 0) -> doc.Cell:
    """Mean and interval with the decimals of their column. `fewer`: decimals than usual."""
    if e is None:
        return doc.Cell("–")
    places = PLACES.get(key, 3) - fewer
    mean, *ends = (f"{round(x, places) + 0.0:,.{places}f}".replace("-", "−") for x in (e.mean, *(e.interval or ())))
    return doc.Cell(mean, " to ".join(ends))
