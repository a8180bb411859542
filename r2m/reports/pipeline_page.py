"""The page of a pipeline's execution, one self-contained HTML file that fits on one screen: the verdict, what ran and
what was cached, the cost, the comparison's figure, the alarm."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from r2m.reports import document as doc
from r2m.reports.alarms import CAPTION
from r2m.reports.plots import curves, styled
from r2m.reports.render import render
from r2m.reports.style import groups
from r2m.results.comparison import Comparison
from r2m.results.morning import BLOCKED, CACHED, FAILED, RAN, Morning, MorningStep
from r2m.results.readings import KL
from r2m.results.statistics import FINDINGS
from r2m.tracking.pipeline_notes import said_tick

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_DRAWN, LONGEST_LABEL, LONGEST_SENTENCE = 6, 26, 330  # arms; characters
HEIGHT = 420  # pixels
BETTER, WORSE = FINDINGS[:2]
STATE_KINDS = {"done": "strong", FAILED: f"{WORSE} strong", "blocked": WORSE, "stopped": WORSE}


def pipeline_html(m: Morning) -> str:
    """One file that needs no network."""
    left: list[doc.Part] = [*([_conditions(m)] if any(v.conditions for v in m.verdicts) else []), _steps(m)]
    right: list[doc.Part] = [_figure(m), *(doc.Note(sentence) for sentence in m.alarm)]
    when = f"{said_tick(m.tick)} · {m.run_id} · {m.status}"
    parts: list[doc.Part] = [
        doc.Note(when), doc.Headline([_cut(said) for said in m.headline], _finding(m)), _tiles(m),
        doc.Beside([doc.Stack(left), doc.Stack(right)]),
    ]  # fmt: skip
    return render(doc.Page(f"{m.pipeline} · R2M pipeline", m.pipeline, parts, [], kind="screen"))


def _finding(m: Morning) -> str:
    if m.status == "failed":
        return WORSE
    return BETTER if m.promoted else ""


def _conditions(m: Morning) -> doc.Table:
    rows: list[doc.Line] = [
        ("", [doc.Cell("holds" if held else "no", kind=BETTER if held else WORSE), doc.Cell(_cut(said), kind="wrap")])
        for verdict in m.verdicts
        for held, said in verdict.conditions
    ]
    return doc.Table(["", "condition"], rows, {0, 1})


def _steps(m: Morning) -> doc.Table:
    rows: list[doc.Line] = [
        ("dim" if step.state == CACHED else "", [
            doc.Cell(step.name, kind="clip"), step.use, doc.Cell(step.state, kind=STATE_KINDS.get(step.state, "")),
            _time(None if step.state == CACHED else step.seconds),
            doc.Cell(_why(m, step), kind="clip", title=step.reason or step.made_by),
        ])
        for step in m.steps
    ]  # fmt: skip
    return doc.Table(["step", "kind", "state", "took", "cached from, or why"], rows, {0, 1, 2, 4})


def _why(m: Morning, step: MorningStep) -> str:
    """Of a cached one the execution that made it, by its time where it is of the same pipeline."""
    if step.state == CACHED:
        made = step.made_by.removesuffix(f".{step.name}")
        own = re.fullmatch(re.escape(m.pipeline) + r"-(\d{8}T\d{4,6}Zm?)-\w+", made)
        return said_tick(own[1]).removeprefix("tick ") if own else made
    again = f"attempt {step.attempts}" if step.attempts > 1 else ""
    return "; ".join(filter(None, (again, step.reason)))


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d}" if hours else f"{minutes} min {rest:02d}" if minutes else f"{rest} s"


def _tiles(m: Morning) -> doc.Tiles:
    ran, cached, failed = (str(len(m.in_state(*of))) for of in ((RAN,), (CACHED,), (FAILED, BLOCKED)))
    return doc.Tiles([
        (_time(m.seconds), "by the clock"), (_time(m.worker_s), "worker time of training"),
        (f"{m.trajectories:,}", "trajectories"), (ran, "steps ran"), (cached, "cached"),
        (failed, "failed or blocked"),
    ])  # fmt: skip


def _figure(m: Morning) -> doc.Plot:
    c = m.comparison
    if c is None:
        compare = [step for step in m.steps if step.use == "compare"]
        gone = f"No comparison: {compare[0].name} is {compare[0].state}." if compare else "Nothing is compared here."
        if compare and compare[0].state in (RAN, CACHED):
            gone = "What was compared is not there any more."
        return doc.Plot("held-out", "On held-out prompts", gone)
    most = f" {MOST_DRAWN} of {len(c.rows)} arms." if len(c.rows) > MOST_DRAWN else ""
    alarm = f" {CAPTION}" if any(row.alarm and row.alarm.rounds for row in c.rows) else ""
    return doc.Plot("held-out", "On held-out prompts", _curves(c), f"Thin: a seed. Bold: their mean.{alarm}{most}")


def _curves(c: Comparison) -> go.Figure | str:
    labels = _short([row.arm.label for row in c.rows[:MOST_DRAWN]])
    named = zip(labels, c.rows, strict=False)
    drawn = groups((label, row.arm.kind, row.arm.runs) for label, row in named)
    figure = curves(drawn, [key for key in (c.metric, KL) if key], columns=1)
    if isinstance(figure, str):
        return figure
    for axis in list(figure.select_xaxes())[:-1]:
        axis.title.text = None  # the lowest one's is everybody's
    return styled(figure, HEIGHT, above=40)


def _short(labels: list[str]) -> list[str]:
    """That a legend has room for, and still told apart."""
    short = [_cut(label, LONGEST_LABEL) for label in labels]
    return [f"{i}: {label}" if short.count(label) > 1 else label for i, label in enumerate(short, 1)]


def _cut(text: str, longest: int = LONGEST_SENTENCE) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
