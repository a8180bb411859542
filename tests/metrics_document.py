"""docs/metrics.md below its introduction, as the registry has it: `python -m tests.metrics_document` writes it."""

from pathlib import Path

from r2m.metrics import PHASES, Phase

DOCUMENT = Path(__file__).parents[1] / "docs" / "metrics.md"
HEAD = "| key | unit | range | definition | a bad value |\n| --- | --- | --- | --- | --- |\n"


def section(phase: Phase) -> str:
    rows = [
        [f"`{m.key}`", *(text.replace("|", r"\|") for text in (m.unit, m.range, m.definition, m.bad))]
        for m in phase.metrics
    ]
    table = HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"## {phase.name}: {phase.about}\n\n" + (f"{phase.note}\n\n" if phase.note else "") + table


def document() -> str:
    introduction = DOCUMENT.read_text("utf-8").partition("## ")[0]
    return introduction + "\n".join(map(section, PHASES))


if __name__ == "__main__":
    DOCUMENT.write_text(document(), "utf-8")
