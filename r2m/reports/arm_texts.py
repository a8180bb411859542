"""What the arms of a comparison said: their best and worst texts, and those that training liked and gold did not."""

from collections.abc import Sequence

from r2m.metrics import metric
from r2m.reports import document as doc
from r2m.results.comparison import Comparison
from r2m.results.numbers import decimals
from r2m.results.texts import ArmText, picks, prompt_text, texts_of

READ = 6  # arms whose texts are shown


def arm_texts(c: Comparison) -> list[doc.Part]:
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
