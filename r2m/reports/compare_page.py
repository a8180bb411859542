"""`r2m compare` as one self-contained HTML file and in a terminal: each setup's answer, numbers, curves, texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from r2m.metrics import metric
from r2m.reports import document as doc
from r2m.reports.alarms import CAPTION, alarm_columns
from r2m.reports.arm_texts import arm_texts
from r2m.reports.plots import curves, over_kl
from r2m.reports.render import render
from r2m.reports.style import Group, groups
from r2m.reports.table import rich_table
from r2m.results.comparison import COLUMNS, SECONDS, ArmRow, Comparison, Difference
from r2m.results.comparison_text import enough, sentences, word
from r2m.results.numbers import METHOD, decimals, estimate_cells, setting_text
from r2m.results.readings import KL
from r2m.results.statistics import Estimate
from r2m.results.table import Arm

if TYPE_CHECKING:
    from rich.console import Group as Printed

DRAWN = 12  # arms in the figures, and in a terminal
LENGTH = "eval/response_tokens"  # for which 80 columns have no room
AFTER = (LENGTH, SECONDS)  # after an arm's settings, without intervals
PLACES = {KL: 2, LENGTH: 2, SECONDS: 1}  # decimals: 3 of the others
TRAINING = ("reward/gold", "reward/vanilla", "reward/proxy", "kl/sequence")
HELD_OUT = ("eval/gold", "eval/vanilla", "eval/win_rate", KL)
_REWARDS = ("reward/proxy", "reward/vanilla", "reward/gold")  # over KL: the paper's reward is the proxy


def compare_html(title: str, comparisons: Sequence[Comparison], notes: Sequence[str]) -> str:
    """One file that needs no network. `notes`: sentences on what was left out."""
    answers = [_answer(c) for c in comparisons]
    lead = answers if len(comparisons) == 1 else []
    sections = [
        doc.PageSection(f"setup-{i}", c.setup, [*([] if lead else [answer]), *_setup(i, c)])
        for i, (c, answer) in enumerate(zip(comparisons, answers, strict=True))
    ]
    return render(doc.Page(f"{title} · R2M", title, [*lead, *map(doc.Note, notes)], sections))


def compare_terminal(c: Comparison) -> Printed:
    """To be printed by a rich console of 80 columns."""
    from rich.console import Group as Printed
    from rich.text import Text

    headline, *rest = sentences(c)
    means = _short_means(c)
    parts: list[Any] = [Text(c.setup, style="bold"), rich_table(means, most=DRAWN, whole=range(1, len(means.head)))]
    if len(c.rows) > DRAWN:
        parts.append(Text(f"... {len(c.rows) - DRAWN} more"))
    for row in c.rows[:DRAWN] if _in_table(c) else ():
        own = [row.arm.kind] * (row.arm.kind != row.arm.label) + [f"{k}={v}" for k, v in _settings(row).items()]
        parts += [Text(f"{row.arm.label}: {', '.join(own)}")] * bool(own)
    differences = _short_differences(c)
    if differences.rows:
        parts.append(rich_table(differences))
    return Printed(*parts, Text(headline, style="bold"), *map(Text, rest))


def _answer(c: Comparison) -> doc.Headline:
    found = {d.estimate.finding for d in c.differences if d.metric == c.metric and not d.matched}
    return doc.Headline(sentences(c), doc.colour_of(found))


def _setup(number: int, c: Comparison) -> list[doc.Part]:
    drawn = groups((row.arm.label, row.arm.kind, row.arm.runs) for row in c.rows[:DRAWN])
    most = f" The first {DRAWN} arms of the table." if len(c.rows) > DRAWN else ""
    clear = [d for d in c.differences if enough(d)]
    few = [d for d in c.differences if not enough(d)]
    folded = f"On fewer than five seeds, without a finding: {', '.join(dict.fromkeys(d.arm for d in few))}"
    differences: list[doc.Part] = [
        _differences(c, clear or few, drawn),
        *([doc.Details(folded, [_differences(c, few, drawn)])] if clear and few else []),
        doc.Note("Difference: arm minus baseline on the same seed. The same KL: where both runs first reach the "
                 f"largest held-out KL that both of them reach, interpolated between evaluations. {METHOD}"),
    ]  # fmt: skip
    return [
        _means(c, drawn),
        doc.Note("Each run's last evaluation, and what it changed since the first: mean over the seeds of finished "
             "runs, its 95 % interval below. Grey: none has finished, as far as they have come. Alarm → end: of the "
             "runs that raised it. Worker s: seconds of a run, times its workers."),
        *(differences if c.differences else []),
        doc.Plot(f"training-{number}", "In training", curves(drawn, TRAINING, columns=2),
             f"On training prompts. Thin: a seed. Bold: their mean, where all of them have a round. {CAPTION}{most}"),
        doc.Plot(f"held-out-{number}", "On held-out prompts", curves(drawn, HELD_OUT, columns=2),
             "The same draws for every run. The vanilla reward that rises while gold falls is reward hacking."),
        doc.Plot(f"reward-kl-{number}", "Reward over KL", over_kl(drawn, _REWARDS),
             "A point is a training round. The proxy of an arm with feedback is a scale of its own."),
        doc.Text("heading", "Texts"),
        *arm_texts(c),
    ]  # fmt: skip


def _means(c: Comparison, groups: Sequence[Group]) -> doc.Table:
    """Each arm, its runs, its means with their intervals below, the alarm, a sweep's settings, and what it cost."""
    shown = [key for key in _shown(c) if key not in AFTER]
    last = [key for key in _shown(c) if key in AFTER]
    gain = [c.metric] if c.metric and any(c.metric in row.gain for row in c.rows) else []
    alarm, alarms = alarm_columns([row.alarm for row in c.rows])
    table = _in_table(c)
    keys = list(dict.fromkeys(key for row in c.rows for key in _settings(row))) if table else []
    head = ["arm", "runs", *map(_name, shown), *(f"change of\n{_name(key)}" for key in gain), *alarm,
            *map(doc.heading, keys), *map(_name, last)]  # fmt: skip
    rows = [
        ("dim" if row.so_far else "", [
            _label(row.arm, groups, row.arm.kind if table and row.arm.kind != row.arm.label else ""),
            doc.Cell(row.status, f"seed{'s' * (len(row.arm.runs) > 1)} {_ranges(row.arm.results)}"),
            *(_estimate(key, row.values.get(key)) for key in shown),
            *(_estimate(key, row.gain.get(key)) for key in gain),
            *cells,
            *(doc.Cell(_settings(row).get(key, "")) for key in keys),
            *(doc.Cell(_estimate(key, row.values.get(key)).text) for key in last),
        ])
        for row, cells in zip(c.rows, alarms, strict=True)
    ]  # fmt: skip
    return doc.Table(head, rows, {0, 1})


def _settings(row: ArmRow) -> dict[str, str]:
    return {key: setting_text(value) for key, value in row.arm.settings.items()}


def _in_table(c: Comparison) -> bool:
    """Whether labels leave the settings to a table: those of a sweep's arms."""
    return any("r2m.trial" in view.tags for row in c.rows for view in row.arm.runs)


def _short_means(c: Comparison) -> doc.Table:
    """What 80 columns have room for: the status below the label, shorter numbers, no interval of the cost."""
    alarm, alarms = alarm_columns([row.alarm for row in c.rows], 2)
    shown = [key for key in _shown(c) if key not in (LENGTH, *[SECONDS] * bool(alarm))]
    rows = []
    for row, alarm_cells in zip(c.rows, alarms, strict=True):
        which = "baseline, " if row is c.rows[0] and len(c.rows) > 1 else ""
        cells = [_estimate(key, row.values.get(key), fewer=1) for key in shown]
        short = [doc.Cell(e.text, "" if key == SECONDS else e.below.replace(" to ", "…"))
                 for key, e in zip(shown, cells, strict=True)]  # fmt: skip
        if alarm_cells:  # in one column
            count, fall = alarm_cells
            short.append(doc.Cell(fall.text, " ".join(filter(None, (count.text, count.below)))))
        rows.append(("", [doc.Cell(_lines(row.arm.label), which + row.status), *short]))
    head = [_name(key).removesuffix(", nats").replace("worker s", "worker\ns") for key in shown]
    return doc.Table(["arm", *head, *alarm[1:]], rows)


def _differences(c: Comparison, shown: Sequence[Difference], groups: Sequence[Group]) -> doc.Table:
    head = [f"against {c.baseline}", "what", "pairs", "mean difference", "95 % interval", "p", "finding", "its KL",
            "baseline's KL"]  # fmt: skip
    rows: list[doc.Line] = []
    for row in c.rows:
        mine = [d for d in shown if d.arm == row.arm.label]
        for d in mine:
            arm = _label(row.arm, groups) if d is mine[0] else ""
            finding = doc.Cell(word(d.metric, d.estimate.finding) if enough(d) else "–", kind=d.estimate.finding)
            cells = [arm, *_numbers(d), finding, *(decimals(kl, 2) for kl in d.kl)]
            rows.append(("" if d is mine[-1] else "more", cells))
    return doc.Table(head, rows, {0, 1, 6})


def _short_differences(c: Comparison) -> doc.Table:
    """Those with seeds enough, else those with more than one. An arm's below its label."""
    shown = [d for d in c.differences if enough(d)] or [d for d in c.differences if d.estimate.n > 1]
    rows = []
    for row in c.rows[:DRAWN]:
        mine = [[f" {what}", *cells, word(d.metric, d.estimate.finding) if enough(d) else "–"]
                for d in shown if d.arm == row.arm.label for what, *cells in [_numbers(d)]]  # fmt: skip
        rows += [("", cells) for cells in ([[_lines(row.arm.label), *[""] * 5], *mine] if mine else [])]
    return doc.Table(["arm − baseline", "n", "mean", "95 % interval", "p", "finding"], rows, {0, 5})


def _shown(c: Comparison) -> list[str]:
    return [key for key in (*COLUMNS, SECONDS) if any(key in row.values for row in c.rows)]


def _name(key: str) -> str:
    """A column's heading."""
    return {SECONDS: "worker s", KL: "KL, nats"}.get(key) or metric(key).label


def _lines(label: str) -> str:
    """Its settings on lines of their own: a column as wide as a line would leave the others no room."""
    kind, dot, settings = label.partition(" · ")
    return kind + (dot and "\n") + settings.replace(", ", "\n")


def _label(arm: Arm, groups: Sequence[Group], below: str = "") -> doc.Cell:
    """An arm's, with the colour that its lines have."""
    dot = next(((group.colour, group.dash != "solid") for group in groups if group.label == arm.label), ("", False))
    return doc.Cell(arm.label, below, "label", "", *dot)


def _ranges(seeds: Iterable[int]) -> str:
    """Three seeds or more that follow each other by the first and the last."""
    parts: list[list[int]] = []
    for seed in seeds:
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(f"{of[0]} to {of[-1]}" if len(of) > 2 else ", ".join(map(str, of)) for of in parts)


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
