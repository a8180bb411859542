"""What a model's responses are worth: AlpacaEval's annotations read, two files of responses judged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r2m.cli.common import err, out
from r2m.errors import UserError

if TYPE_CHECKING:
    from r2m.evaluation.win_rate import WinRate

app = typer.Typer()
evaluate = typer.Typer(no_args_is_help=True, help="What a model's responses are worth, by judges.")
app.add_typer(evaluate, name="evaluate")


@evaluate.command("annotations")
def alpaca_eval(
    file: Annotated[str, typer.Argument(help="AlpacaEval's annotations.json of one model")],
    gamed: Annotated[
        str | None, typer.Option(help="AlpacaEval's df_gamed.csv: adds the length-controlled rate")
    ] = None,
    instructions: Annotated[
        str | None, typer.Option(help="the baseline's model_outputs.json, to find rows by their instruction")
    ] = None,
) -> None:
    """AlpacaEval 2: win rate and length-controlled win rate, in per cent, with standard errors."""
    from r2m.evaluation.alpaca_eval import length_controlled, win_rate
    from r2m.evaluation.alpaca_files import read_annotations, read_gamed, read_outputs

    order = None if instructions is None else [row["instruction"] for row in read_outputs(instructions)]
    rows = read_annotations(file, order)
    plain = win_rate(rows.preference_N)
    out.print(f"{rows.model} against {rows.baseline}: {plain.n_total} prompts", markup=False)
    out.print(
        f"win rate {plain.win_rate:.2f} ± {plain.standard_error:.2f} (standard error); "
        f"{plain.n_wins} won, {plain.n_wins_base} lost, {plain.n_draws} drawn; "
        f"discrete {plain.discrete_win_rate:.2f}"
    )
    if gamed is not None:
        controlled = length_controlled(rows, read_gamed(gamed))
        error = controlled.standard_error
        out.print(f"length-controlled win rate {controlled.win_rate:.2f} ± {error:.2f} (standard error)")


@evaluate.command("outputs")
def win_rate_by_judge(
    file: Annotated[str, typer.Argument(help="model_outputs.json: rows of instruction and output")],
    against: Annotated[str, typer.Option(help="the same of a rival, or of references")],
    judge_url: Annotated[str, typer.Option(help="an OpenAI-compatible endpoint, such as http://HOST/v1")],
    judge_model: Annotated[str, typer.Option(help="the model to ask for there")],
    verdicts: Annotated[Path, typer.Option(help="file that keeps every verdict; none is asked for twice")],
    key_env: Annotated[
        str | None, typer.Option(help="the environment variable that holds the endpoint's key")
    ] = None,
    template: Annotated[str, typer.Option(help="what the judge is asked: general or tldr")] = "general",
    max_calls: Annotated[int | None, typer.Option(min=1, help="requests at most")] = None,
    max_cost: Annotated[float | None, typer.Option(min=0.0, help="spend at most; needs the prices")] = None,
    price_in: Annotated[float, typer.Option(min=0.0, help="of a million tokens asked")] = 0.0,
    price_out: Annotated[float, typer.Option(min=0.0, help="of a million tokens answered")] = 0.0,
    concurrency: Annotated[int, typer.Option(min=1)] = 4,
    to: Annotated[Path | None, typer.Option("--out", help="annotations.json to write")] = None,
) -> None:
    """Win rate by a language model as the judge, asked in both orders; bootstrap intervals over the prompts."""
    from r2m.evaluation.alpaca_files import annotation_rows, read_outputs, write_rows
    from r2m.evaluation.chat_endpoint import ChatEndpoint
    from r2m.evaluation.endpoint_judge import Cap, EndpointJudge
    from r2m.evaluation.judge_prompts import TEMPLATES
    from r2m.evaluation.verdicts import VerdictStore
    from r2m.evaluation.win_rate import win_rate

    if template not in TEMPLATES:
        raise UserError(f"--template {template!r}: one of {', '.join(TEMPLATES)}")
    ours, theirs = read_outputs(file), read_outputs(against)
    rival = {row["instruction"]: row["output"] for row in theirs}
    shared = [row for row in ours if row["instruction"] in rival]
    if not shared:
        raise UserError(f"--against {against!r}: has none of the instructions of {file!r}")
    prompts = [row["instruction"] for row in shared]
    with VerdictStore(verdicts) as store:
        endpoint = ChatEndpoint(judge_url, judge_model, key_env=key_env)
        cap = Cap(max_calls, max_cost, price_in, price_out)
        judge = EndpointJudge(endpoint, TEMPLATES[template], store, cap, concurrency)
        result = win_rate(judge, prompts, [row["output"] for row in shared], [rival[p] for p in prompts])
    err.print(str(judge.tally), markup=False)
    _print(result, len(prompts))
    if to is not None:
        write_rows(
            to, annotation_rows(theirs, ours, dict(zip(prompts, result.wins_N, strict=True)), judge.name)
        )
        out.print(f"written: {to}", soft_wrap=True)


def _print(result: WinRate, prompts: int) -> None:
    """Rates in per cent."""
    if result.rate is None:
        raise UserError(f"judge = {result.judge!r}: no usable verdict on any of {prompts} prompts")
    out.print(f"judge {result.judge}, both orders, {prompts} prompts", markup=False)
    out.print(f"win rate {100 * result.rate.mean:.1f} %{_between(result.rate.interval)}")
    out.print(
        f"{result.ties} ties ({result.identical} equal responses, {result.contradictory} where the orders "
        f"contradict), {result.unanswered} left out"
    )
    if result.length_controlled is not None:
        controlled = result.length_controlled
        out.print(f"length-controlled {100 * controlled.rate:.1f} %{_between(controlled.interval)}")


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f", 95 % interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
