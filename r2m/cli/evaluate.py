"""What a model's responses are worth: a run or a model assessed, files of responses judged, annotations read."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from r2m.cli.common import STORAGE, Storage, out, progress
from r2m.cli.judges import (
    Concurrency,
    JudgeModel,
    JudgeUrl,
    KeyEnv,
    MaxCalls,
    MaxCost,
    PriceIn,
    PriceOut,
    Template,
    Verdicts,
    check_template,
    endpoint_judge,
    print_win_rate,
)
from r2m.errors import UserError

if TYPE_CHECKING:
    from r2m.config import Config
    from r2m.evaluation.win_rate import Judge

SUBJECT = "RUN|MODEL"


class Subjects(TyperGroup):
    """What names no command is the name of a run or of a model."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] != "--help" and args[0] not in self.commands:
            args = [SUBJECT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer()
evaluate = typer.Typer(
    cls=Subjects,
    no_args_is_help=True,
    help=(
        "What a model's responses are worth: `r2m evaluate RUN` assesses a finished run, `r2m evaluate MODEL "
        "--recipe RECIPE` a folder or hub id; `outputs` and `annotations` read files."
    ),
)
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
    key_env: KeyEnv = None,
    template: Template = "general",
    max_calls: MaxCalls = None,
    max_cost: MaxCost = None,
    price_in: PriceIn = 0.0,
    price_out: PriceOut = 0.0,
    concurrency: Concurrency = 4,
    to: Annotated[Path | None, typer.Option("--out", help="annotations.json to write")] = None,
) -> None:
    """Win rate by a language model as the judge, asked in both orders; bootstrap intervals over the prompts."""
    from r2m.evaluation.alpaca_files import annotation_rows, read_outputs, write_rows
    from r2m.evaluation.endpoint_judge import Cap
    from r2m.evaluation.win_rate import win_rate

    check_template(template)
    ours, theirs = read_outputs(file), read_outputs(against)
    rival = {row["instruction"]: row["output"] for row in theirs}
    shared = [row for row in ours if row["instruction"] in rival]
    if not shared:
        raise UserError(f"--against {against!r}: has none of the instructions of {file!r}")
    prompts = [row["instruction"] for row in shared]
    cap = Cap(max_calls, max_cost, price_in, price_out)
    with endpoint_judge(judge_url, judge_model, key_env, verdicts, template, cap, concurrency) as judge:
        result = win_rate(judge, prompts, [row["output"] for row in shared], [rival[p] for p in prompts])
    print_win_rate(result, len(prompts))
    if to is not None:
        write_rows(
            to, annotation_rows(theirs, ours, dict(zip(prompts, result.wins_N, strict=True)), judge.name)
        )
        out.print(f"written: {to}", soft_wrap=True)


@evaluate.command(SUBJECT)
def run_or_model(
    subject: Annotated[
        str,
        typer.Argument(metavar="NAME", help="a finished run in the storage, or a model's folder or hub id"),
    ],
    recipe: Annotated[
        str | None, typer.Option(help="for a model: whose prompts, sampling and reward model")
    ] = None,
    storage: Storage = None,
    prompts: Annotated[int | None, typer.Option(help="the first held-out prompts only")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="cut responses there (TL;DR, F.3: 50)")] = None,
    judge: Annotated[
        str | None, typer.Option(help="gold, frozen, or a reward model's folder or hub id")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="sft, reference, another run, or a model_outputs.json")
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            help="preference pairs to add to the reward accuracy; their prompts are put as the task's own, in "
            "conversations too: its instruction in front, and a conversation where its prompts are"
        ),
    ] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="assess anew what is on file")] = False,
    judge_url: JudgeUrl = None,
    judge_model: JudgeModel = None,
    verdicts: Verdicts = None,
    key_env: KeyEnv = None,
    template: Template = "general",
    max_calls: MaxCalls = None,
    max_cost: MaxCost = None,
    price_in: PriceIn = 0.0,
    price_out: PriceOut = 0.0,
    concurrency: Concurrency = 4,
    to: Annotated[Path | None, typer.Option("--out", help="model_outputs.json to write")] = None,
) -> None:
    """A finished run, or a model under a recipe, on held-out prompts: scores, win rates, reward accuracy, similarity.

    A run's assessment is kept in its folder, and read from there the next time. With --judge-url a language model
    judges, in both orders; with --verdicts alone its verdicts on file do, and nobody is asked.
    """
    from r2m.assessment.assess import FILE
    from r2m.assessment.judging import TEXT_OF, output_rows, stored_judge
    from r2m.assessment.judging import against as against_rival
    from r2m.assessment.rivals import check_rival, differences, find_rival, win_rates
    from r2m.cli.assessment import MEANS, parts, win_rate_table
    from r2m.evaluation.alpaca_files import write_rows
    from r2m.evaluation.endpoint_judge import Cap
    from r2m.reporting.numbers import interval, number
    from r2m.training.runs import run_folder

    check_template(template)
    where, spoken = storage or STORAGE, judge_url is not None or verdicts is not None
    if judge_url is not None and (judge_model is None or verdicts is None):
        raise UserError("--judge-url: --judge-model and --verdicts are needed with it")
    if spoken and (judge is not None or against is None):
        raise UserError("--verdicts: --against is needed with it, and --judge is another judge")
    if against is not None:
        check_rival(against, where)
    if to is not None and not to.absolute().parent.is_dir():
        raise UserError(f"--out {str(to)!r}: no such folder")
    with ExitStack() as stack:
        asked: Judge | None = None
        if judge_url is not None and judge_model is not None and verdicts is not None:
            cap = Cap(max_calls, max_cost, price_in, price_out)
            asked = stack.enter_context(
                endpoint_judge(judge_url, judge_model, key_env, verdicts, template, cap, concurrency)
            )
        elif verdicts is not None:
            asked = stored_judge(verdicts, template, judge_model)
        with progress() as bar:
            config, tree = _assess(
                subject, recipe, where, max_tokens,
                prompts=prompts, pairs=pairs, judge=judge, refresh=refresh, progress=bar,
            )  # fmt: skip
        own = asked is None and against in (None, *TEXT_OF)
        listed = [
            rate
            for rate in tree["win_rates"]
            if own and against in (None, rate["against"]) and judge in (None, rate["judge"])
        ]
        if own and not listed:
            raise UserError(f"--against {against!r}, --judge {judge!r}: this task has no such win rate")
        for part in parts(tree, listed):
            out.print(part, markup=False)
        if tree["run"] is not None:
            out.print(f"assessment: {run_folder(where, subject) / FILE}", soft_wrap=True)
        if to is not None:
            write_rows(to, output_rows(tree["rows"], subject, config.recipe))
            out.print(f"written: {to}", soft_wrap=True)
        if against is None or own:
            return
        with progress() as bar:
            rival = find_rival(tree, against, where, bar)
        if asked is not None:
            result = against_rival(asked, tree["rows"], rival.texts)
            assert result is not None, "find_rival has found a response to one of the prompts"
            out.print(f"against {rival.name}, asked as {template}", markup=False)
            print_win_rate(result, len(result.wins_N))
            return
        out.print(win_rate_table(win_rates(config, tree, rival, judge)))
        for key, found in differences(tree, rival).items():
            label = f"{MEANS[key]}, less that of {rival.name}"
            out.print(f"{label}: {number(found.mean)}, {interval(found)}, {found.n} prompts", markup=False)


def _assess(
    subject: str, recipe: str | None, storage: str, max_tokens: int | None, **options: Any
) -> tuple[Config, dict[str, Any]]:
    """Of a run that is in the storage, else of a model."""
    from r2m.assessment.assess import assess, assess_policy, finished_run
    from r2m.assessment.rivals import is_run
    from r2m.config import load
    from r2m.training.runs import existing_folder

    refresh = options.pop("refresh")
    if recipe is None:
        try:
            existing_folder(storage, subject)
        except UserError as error:
            raise UserError(f"{error}; a model needs --recipe, which says what it is asked") from None
        folder, _, config = finished_run(storage, subject)
        if max_tokens is None:
            return config, assess(storage, subject, refresh=refresh, **options)
        return config, assess_policy(config, folder / "policy", max_tokens=max_tokens, **options)
    if is_run(storage, subject):
        raise UserError(f"--recipe {recipe!r}: {subject!r} is a run, which has its own")
    config = load(recipe, [f"run.storage={storage}"])
    return config, assess_policy(config, subject, max_tokens=max_tokens, **options)
