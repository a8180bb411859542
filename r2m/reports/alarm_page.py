"""What an alarm says of a run, as one self-contained HTML file, with the texts that show it best."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from r2m.alarm.evidence import Turn
from r2m.alarm.rule import DEFAULT, PROXY, RELATIVE, SIGNALS, Thresholds
from r2m.metrics import metric
from r2m.reports import document as doc
from r2m.reports.plots import styled
from r2m.reports.render import render
from r2m.reports.style import COLOURS, REST
from r2m.results.numbers import decimals, number
from r2m.results.texts import prompt_text
from r2m.runs.journal import JournalView
from r2m.runs.records import Record

if TYPE_CHECKING:
    import plotly.graph_objects as go


def alarm_html(view: JournalView, alarm: Record, turns: Sequence[Turn], thresholds: Thresholds = DEFAULT) -> str:
    """`alarm`: the journal's event. `turns`: what to show of the texts, in order."""
    step, began, kept = alarm["step"], alarm["began"], alarm["checkpoint"]
    kept_said = (
        f"The last checkpoint up to round {began} that is kept: step-{kept:06d}."
        if kept is not None
        else f"No checkpoint up to round {began} was kept (run.keep_checkpoints, run.checkpoint_every)."
    )
    shown: list[doc.Part] = [
        doc.Note(
            "Responses to the same held-out prompts from the same draws, which the reward in training scores higher "
            "now and the judge lower. Those first that changed most, in standard deviations over all prompts."
        ),
        _texts(turns, step, began),
    ]
    none: list[doc.Part] = [doc.Note("No text was kept that shows it.")]
    sections = [
        doc.PageSection("texts", "Texts", shown if turns else none),
        doc.PageSection("curves", "Proxy and judgement", [
            doc.Plot("alarm", "On the held-out prompts", _curves(view, step, began),
                     f"Dashed: round {began}, judged best; dotted: round {step}, the alarm."),
        ]),
        doc.PageSection("signals", "Signals", [
            _signals(alarm, thresholds),
            doc.Note("A signal past its threshold is a suspicion, and no more: most of them move when training goes "
                     "well, too. While one stands, responses are judged by what takes no part in training. The alarm "
                     f"is that the same prompts are judged lower than at their best, by a t statistic above "
                     f"{thresholds.decline:g}, while the proxy has risen since."),
        ]),
    ]  # fmt: skip
    headline = f"Since round {began} the reward in training has gone up, and what it stands for down."
    title = f"Alarm in round {step}: {view.run_id}"
    sentence = f"{alarm['reason'][0].upper()}{alarm['reason'][1:]}."
    return render(
        doc.Page(f"{title} · R2M", title, [doc.Headline([headline, sentence, kept_said], "worse")], sections)
    )


def _texts(turns: Sequence[Turn], step: int, began: int) -> doc.Table:
    rows: list[doc.Line] = [
        ("", [
            *(doc.Cell(text, kind="said") for text in (prompt_text(t.prompt), t.then, t.now)),
            *(decimals(value, 2) for value in (*t.proxy, *t.judged)),
        ])
        for t in turns
    ]  # fmt: skip
    rounds = [f"round {began}", f"round {step}"]
    return doc.Table(["prompt", *rounds, *rounds, *rounds], rows, {0, 1, 2},
                     [("", 1), ("response", 2), ("proxy", 2), ("judged", 2)])  # fmt: skip


def _signals(alarm: Record, thresholds: Thresholds) -> doc.Table:
    rows: list[doc.Line] = []
    for name, key in SIGNALS.items():
        if name not in alarm["signals"]:
            continue
        value, limit, m = alarm["signals"][name], getattr(thresholds, name), metric(key)
        past = (abs(value) if name in RELATIVE else value) > limit
        unit = "change as a share" if name in RELATIVE else m.unit
        rows.append(("", [
            doc.Cell(m.title, key), doc.Cell(number(value), kind="worse" if past else ""), number(limit), unit,
            doc.Cell(m.definition, f"A bad value: {m.bad}"),
        ]))  # fmt: skip
    return doc.Table(["signal", "now", "threshold", "unit", "definition"], rows, {0, 3, 4})


def _curves(view: JournalView, step: int, began: int) -> go.Figure:
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    steps, proxies = view.series(PROXY)
    judged = {s: fmean(scores) for s, scores in sorted(view.judged.items())}
    figure = make_subplots(1, 2, subplot_titles=["proxy", "judgement"], horizontal_spacing=0.12)
    series = [(steps, proxies, COLOURS["RLOO"]), (list(judged), list(judged.values()), COLOURS["R2M"])]
    for column, (x, y, colour) in enumerate(series, 1):
        figure.add_trace(
            Scatter(x=x, y=y, mode="lines+markers", line={"color": colour}, showlegend=False), row=1, col=column
        )
    for at, dash in ((began, "dash"), (step, "dot")):
        figure.add_vline(at, line={"dash": dash, "color": REST})
    styled(figure, 320, above=24)
    return figure.update_xaxes(title_text="round")
