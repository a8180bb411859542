"""`r2m compare` as one self-contained HTML file: for each setup the answer, the numbers, the curves, the texts."""

from __future__ import annotations

from collections.abc import Sequence

from r2m.reports import document as doc
from r2m.reports.compare_tables import differences, means
from r2m.reports.plots import curves, over_kl
from r2m.reports.render import render
from r2m.reports.style import groups
from r2m.results.comparison import Comparison
from r2m.results.comparison_text import sentences
from r2m.results.findings import METHOD
from r2m.results.numbers import decimals
from r2m.results.readings import KL
from r2m.results.texts import Text, picks, texts_of

DRAWN = 12  # arms in the figures
READ = 6  # arms whose texts are shown
TRAINING = ("reward/gold", "reward/vanilla", "reward/proxy", "kl/sequence")
HELD_OUT = ("eval/gold", "eval/vanilla", "eval/win_rate", KL)
_REWARDS = ("reward/proxy", "reward/vanilla", "reward/gold")  # over KL: the paper's reward is the proxy


def html(title: str, comparisons: Sequence[Comparison], notes: Sequence[str]) -> str:
    """One file that needs no network. `notes`: sentences on what was left out."""
    sections = [doc.Section(f"setup-{i}", c.setup, _setup(i, c)) for i, c in enumerate(comparisons)]
    return render(doc.Page(f"{title} · R2M", title, [*map(doc.Note, notes)], sections))


def _setup(number: int, c: Comparison) -> list[doc.Part]:
    drawn = groups((row.arm.label, row.arm.kind, row.arm.runs) for row in c.rows[:DRAWN])
    few = f" The first {DRAWN} arms of the table." if len(c.rows) > DRAWN else ""
    found = {d.finding for d in c.differences if d.metric == c.metric and not d.matched}
    parts: list[doc.Part] = [
        doc.Verdict(sentences(c), doc.colour_of(found)),
        means(c, drawn),
        doc.Note("Each run's last evaluation, and what it changed since the first: mean over the seeds of finished "
             "runs, its 95 % interval below. Grey: none has finished, as far as they have come. Worker s: seconds of "
             "a run, times its workers."),
    ]  # fmt: skip
    if c.differences:
        parts += [
            differences(c, drawn),
            doc.Note("Difference: arm minus baseline on the same seed. The same KL: where both runs first reach the "
                 f"largest held-out KL that both of them reach, interpolated between evaluations. {METHOD}"),
        ]  # fmt: skip
    return [
        *parts,
        doc.Plot(f"training-{number}", "In training", curves(drawn, TRAINING, columns=2),
             f"On training prompts. Thin: a seed. Bold: their mean, where all of them have a round.{few}"),
        doc.Plot(f"held-out-{number}", "On held-out prompts", curves(drawn, HELD_OUT, columns=2),
             "The same draws for every run. The frozen reward that rises while gold falls is reward hacking."),
        doc.Plot(f"reward-kl-{number}", "Reward over KL", over_kl(drawn, _REWARDS),
             "A point is a training round. The proxy of an arm with feedback is a scale of its own."),
        doc.Text("heading", "Texts"),
        *_texts(c),
    ]  # fmt: skip


def _texts(c: Comparison) -> list[doc.Part]:
    few = f" The first {READ} arms of the table." if len(c.rows) > READ else ""
    parts: list[doc.Part] = [
        doc.Note("Of the samples in the runs' journals and, of runs that r2m evaluate has assessed, of held-out "
             f"prompts. Gap: proxy less gold, each in standard deviations over the arm's texts.{few}")
    ]  # fmt: skip
    for row in c.rows[:READ]:
        inner: list[doc.Part] = []
        for title, chosen in picks(texts_of(row.arm)).items():
            inner += [doc.Text("labelled", "", title), _table(chosen)]
        none = doc.Note("No texts in its journals yet (run.sample_every).")
        parts.append(doc.Details(row.arm.label, inner or [none], open=row is c.rows[0]))
    return parts


def _table(texts: Sequence[Text]) -> doc.Table:
    head = ["prompt", "response", "proxy", "frozen", "gold", "gap", "run", "round"]
    rows: list[doc.Line] = [
        ("", [
            doc.Cell(_said(t.prompt), kind="said"), doc.Cell(t.response, kind="said"),
            *(decimals(value, 2) for value in (t.proxy, t.vanilla, t.gold, t.gap)), t.run,
            "end" if t.round is None else str(t.round),
        ])
        for t in texts
    ]  # fmt: skip
    return doc.Table(head, rows, {0, 1, 6})


def _said(prompt: str | Sequence[dict[str, str]]) -> str:
    """A prompt, or the messages of a chat."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in prompt)
