"""`r2m evaluate` on files: responses judged, AlpacaEval's annotations read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from r2m.cli.common import out
from r2m.cli.judges import JudgeOptions, check_out, print_win_rate
from r2m.cli.options import home, with_options
from r2m.errors import UserError

if TYPE_CHECKING:
    from r2m.evaluation.alpaca_eval import AlpacaLengthControlled, Annotations
    from r2m.evaluation.alpaca_files import EvaluationSet


def alpaca_eval(
    file: Annotated[str, Argument(callback=home, help="AlpacaEval's annotations.json of one model")],
    gamed: Annotated[str | None, Option(callback=home, help="df_gamed.csv: adds the length-controlled rate")] = None,
    instructions: Annotated[
        str | None, Option(callback=home, help="the baseline's model_outputs.json: finds rows by their instruction")
    ] = None,
    weights: Annotated[
        str | None, Option(callback=home, help="baseline_gpt4_1106_preview.csv: its weights, no fit; with --gamed")
    ] = None,
) -> None:
    """AlpacaEval 2: win rate and length-controlled win rate, in per cent, with standard errors."""
    from r2m.evaluation.alpaca_eval import alpaca_win_rate
    from r2m.evaluation.alpaca_files import read_annotations, read_evaluation_set

    if weights is not None and gamed is None:
        raise UserError(f"--weights {weights!r}: --gamed is needed with it, for the instructions' difficulty")
    order = None if instructions is None else read_evaluation_set(instructions)
    rows = read_annotations(file, order)
    plain = alpaca_win_rate(rows.preference_N)
    controlled = None if gamed is None else _controlled(rows, gamed, weights, order)
    out.print(f"{rows.model} against {rows.baseline}: {plain.n_total} prompts")
    counts = f"{plain.n_wins} won, {plain.n_wins_base} lost, {plain.n_draws} drawn"
    rate = f"{plain.win_rate:.2f}{_error(plain.standard_error)}"
    out.print(f"win rate {rate}; {counts}; discrete {plain.discrete_win_rate:.2f}")
    if controlled is not None:
        error = _error(controlled.standard_error)
        by = "" if weights is None else f", by the weights in {weights}"
        out.print(f"length-controlled win rate {controlled.win_rate:.2f}{error}{by}")
        if order is not None and order.by_position:
            said = f"the instructions are numbered by their order in {instructions}, whose rows have no index"
            out.print(said, soft_wrap=True)


def _controlled(
    rows: Annotations, gamed: str, weights: str | None, order: EvaluationSet | None
) -> AlpacaLengthControlled:
    from r2m.evaluation.alpaca_eval import alpaca_length_controlled, controlled_by, difficulties
    from r2m.evaluation.alpaca_tables import read_difficulty, read_gamed, read_weights

    table = read_gamed(gamed) if weights is None else None
    difficulty = read_difficulty(gamed) if table is None else table.difficulty
    if order is not None and order.by_position and len(order.index) != len(difficulty):
        raise UserError(
            f"--instructions: {len(order.index)} rows, and {len(difficulty)} instructions in {gamed!r}; all of them, "
            "in order, or rows with index are needed"
        )
    if table is not None:
        return alpaca_length_controlled(rows, table)
    published = read_weights(str(weights))
    if rows.model not in published:
        raise UserError(f"--weights {weights!r}: none of {rows.model!r}; it has {', '.join(published)[:200]}")
    own = published.get(rows.baseline)
    if own is not None and any(vars(own).values()):  # a baseline's own are 0
        raise UserError(f"--weights {weights!r}: they are against another baseline than {rows.baseline!r}")
    return controlled_by(published[rows.model], difficulties(rows, difficulty))


def _error(standard_error: float) -> str:
    """NaN is that of one row, and 0 that of rows which are all alike: neither says how sure the rate is."""
    if not standard_error > 0:
        return " (no standard error: one row, or all alike)"
    shown = f"{standard_error:.2f}" if standard_error >= 0.005 else f"{standard_error:.1g}"
    return f" ± {shown} (standard error)"


@with_options(JudgeOptions, "spoken")
def win_rate_by_judge(
    file: Annotated[str, Argument(callback=home, help="model_outputs.json: rows of instruction and output")],
    against: Annotated[str, Option(callback=home, help="the same of a rival, or of references")],
    spoken: JudgeOptions,
    to: Annotated[Path | None, Option("--out", callback=home, help="annotations.json to write")] = None,
) -> None:
    """Win rate by a language model as the judge, asked in both orders; bootstrap intervals over the prompts.

    With --verdicts alone its verdicts on file judge, and nobody is asked.
    """
    from r2m.evaluation.alpaca_files import annotation_rows, read_outputs, write_rows
    from r2m.evaluation.win_rate import win_rate

    check_out(to, file, against, spoken.verdicts)
    ours, theirs = read_outputs(file), read_outputs(against)
    rival = {row["instruction"]: row["output"] for row in theirs}
    shared = [row for row in ours if row["instruction"] in rival]
    if not shared:
        raise UserError(f"--against {against!r}: has none of the instructions of {file!r}")
    prompts = [row["instruction"] for row in shared]
    with spoken.judge() as judge:
        if judge is None:
            raise UserError("--judge-url, --judge-model and --verdicts are needed, or --verdicts of earlier calls")
        result = win_rate(judge, prompts, [row["output"] for row in shared], [rival[p] for p in prompts])
    if len(shared) < max(len(ours), len(theirs)):
        out.print(f"{len(shared)} instructions are in both files, of {len(ours)} and {len(theirs)}")
    print_win_rate(result, len(prompts))
    if to is not None:
        wins = dict(zip(prompts, result.wins_N, strict=True))
        write_rows(to, annotation_rows(theirs, ours, wins, judge.name))
        out.print(f"written: {to}", soft_wrap=True)
