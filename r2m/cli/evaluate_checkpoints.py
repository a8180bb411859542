"""`r2m evaluate RUN --checkpoints`: which of the checkpoints that a run has kept is the best."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from r2m.cli.common import out, progress, say
from r2m.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from r2m.cli.judges import JudgeOptions
    from r2m.results.checkpoints import CheckpointScores


def evaluate_checkpoints(
    run: str, storage: str, spoken: JudgeOptions, judge: str | None, against: str | None, prompts: int | None,
    refresh: bool, export: Path | None,
) -> None:  # fmt: skip
    """Raises UserError for options that do not go together, and as `score_checkpoints`."""
    from r2m.evaluation.subjects import TEXT_OF, run_with_checkpoints
    from r2m.results.checkpoints import TABLE

    speaks = spoken.judge_url is not None or spoken.verdicts is not None
    if against is not None and (not speaks or against not in TEXT_OF):
        raise UserError(
            f"--against {against!r}: with --checkpoints it is sft or reference, of --judge-url or --verdicts"
        )
    if speaks and judge is not None:
        raise UserError(f"--judge {judge!r}: --judge-url or --verdicts is another judge")
    folder, _, _ = run_with_checkpoints(storage, run)
    from r2m.evaluation.checkpoints import score_checkpoints

    with spoken.judge() as asked, progress() as bar:
        known = score_checkpoints(
            storage, run, prompts=prompts, judge=judge, asked=asked, against=against, refresh=refresh, export=export,
            refused=lambda why: say(f"left out: {why}"), progress=bar,
        )  # fmt: skip
    out.print(f"{run}: checkpoints by {known.judge}, {known.prompts} held-out prompts")
    out.print(checkpoint_table(known))
    for sentence in known.verdict():
        out.print(sentence)
    out.print(f"table: {folder / TABLE}", soft_wrap=True)
    if export is not None and known.best is not None:
        out.print(f"written: {export}, the policy of round {known.best.step}", soft_wrap=True)
    elif known.best is not None:
        out.print(f"--export FOLDER writes the policy of round {known.best.step} as a Hugging Face folder")


def checkpoint_table(known: CheckpointScores) -> RenderableType:
    """The best has a star."""
    from r2m.reports.table import terminal_table
    from r2m.results.numbers import decimals, low_high

    table = terminal_table("round", "score", "less the best", "95 %", "proxy", "vanilla", "KL, nats", text=[])
    for row in known.rows:
        gain = None if known.best in (None, row) else known.gain(row, known.best)
        numbers = [decimals(float("nan") if value is None else value, places)
                   for value, places in ((row.proxy, 2), (row.vanilla, 2), (row.kl, 2))]  # fmt: skip
        score = "–" if row.score is None else decimals(row.score)
        paired = ["", ""] if gain is None else [decimals(gain.mean), low_high(gain.interval)]
        table.add_row(f"{row.step}{' *' * (row is known.best)}", score, *paired, *numbers)
    return table
