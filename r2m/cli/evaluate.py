"""What a model's responses are worth: a run or a model assessed, files of responses judged, annotations read."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option
from typer.core import TyperGroup

from r2m.cli.common import out, progress
from r2m.cli.evaluate_checkpoints import evaluate_checkpoints
from r2m.cli.evaluate_files import alpaca_eval, win_rate_by_judge
from r2m.cli.judges import JudgeOptions, check_out, print_win_rate
from r2m.cli.options import Storage, home, local, storage_path, with_options
from r2m.errors import UserError

if TYPE_CHECKING:
    from r2m.config import Config
    from r2m.results.assessment import Assessment

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
evaluate.command("annotations")(alpaca_eval)
evaluate.command("outputs")(win_rate_by_judge)


@evaluate.command(SUBJECT)
@with_options(JudgeOptions, "spoken")
def run_or_model(
    subject: Annotated[
        str, Argument(metavar="NAME", help="a finished run in the storage, or a model's folder or hub id")
    ],
    spoken: JudgeOptions,
    recipe: Annotated[str | None, Option(help="for a model: whose prompts, sampling and reward model")] = None,
    storage: Storage = None,
    prompts: Annotated[int | None, Option(help="the first held-out prompts only")] = None,
    max_tokens: Annotated[int | None, Option(help="cut responses there (TL;DR, F.3: 50)")] = None,
    judge: Annotated[str | None, Option(help="gold, vanilla, or a reward model's folder or hub id")] = None,
    against: Annotated[str | None, Option(help="sft, reference, another run, or a model_outputs.json")] = None,
    pairs: Annotated[
        str | None,
        Option(
            help="preference pairs to add to the reward accuracy; their prompts are put as the task's own, in "
            "conversations too: its instruction in front, and a conversation where its prompts are"
        ),
    ] = None,
    checkpoints: Annotated[
        bool, Option("--checkpoints", help="of a run: score those that it kept, and name the best")
    ] = False,
    export: Annotated[
        Path | None, Option(callback=local, help="with --checkpoints: new folder for the best one's policy")
    ] = None,
    refresh: Annotated[bool, Option("--refresh", help="assess anew what is on file")] = False,
    to: Annotated[Path | None, Option("--out", callback=home, help="model_outputs.json to write")] = None,
) -> None:
    """A finished run, or a model under a recipe, on held-out prompts: scores, win rates, reward accuracy, similarity.

    A run's assessment is kept in its folder, and read from there the next time. With --judge-url a language model
    judges, in both orders; with --verdicts alone its verdicts on file do, and nobody is asked.

    With --checkpoints: gold where there is one, else run.judge, --judge or --judge-url, chooses among the checkpoints
    that the run has kept (run.keep_checkpoints).
    """
    from r2m.cli.assessment import MEANS, parts, win_rate_table
    from r2m.evaluation.alpaca_files import write_rows
    from r2m.evaluation.subjects import TEXT_OF, check_rival
    from r2m.results.numbers import interval, number
    from r2m.runs.folder import ASSESSMENT, run_folder

    spoken.check()
    where = storage_path(storage)
    subject = home(subject)
    judge, against, pairs = (x and os.path.expanduser(x) for x in (judge, against, pairs))
    judge = "vanilla" if judge == "frozen" else judge  # what it was called before
    if checkpoints or export is not None:
        others = {"--recipe": recipe, "--max-tokens": max_tokens, "--pairs": pairs, "--out": to}
        if not checkpoints:
            raise UserError("--export: --checkpoints is needed with it")
        if given := [name for name, value in others.items() if value is not None]:
            raise UserError(f"{given[0]}: it does not go with --checkpoints")
        evaluate_checkpoints(subject, where, spoken, judge, against, prompts, refresh, export)
        return
    if spoken.verdicts is not None and (judge is not None or against is None):
        raise UserError("--verdicts: --against is needed with it, and --judge is another judge")
    if against is not None:
        check_rival(against, where)
    check_out(to, against, pairs, spoken.verdicts)
    with ExitStack() as stack:
        asked = stack.enter_context(spoken.judge())
        with progress() as bar:
            options = {"prompts": prompts, "pairs": pairs, "judge": judge, "progress": bar}
            config, known = _assess(subject, recipe, where, max_tokens, refresh, **options)
        from r2m.evaluation.judging import against as against_rival
        from r2m.evaluation.judging import output_rows
        from r2m.evaluation.rivals import differences, find_rival, win_rates

        own = asked is None and against in (None, *TEXT_OF)
        rates = known.win_rates if own else []
        listed = [rate for rate in rates if against in (None, rate.against) and judge in (None, rate.judge)]
        if own and not listed:
            raise UserError(f"--against {against!r}, --judge {judge!r}: this task has no such win rate")
        for part in parts(known, listed):
            out.print(part)
        if known.run is not None:
            out.print(f"assessment: {run_folder(where, subject) / ASSESSMENT}", soft_wrap=True)
        if to is not None:
            write_rows(to, output_rows(known.rows, subject, config.recipe))
            out.print(f"written: {to}", soft_wrap=True)
        if against is None or own:
            return
        with progress() as bar:
            rival = find_rival(known, against, where, bar)
        if asked is not None:
            result = against_rival(asked, known.rows, rival.texts)
            assert result is not None, "find_rival has found a response to one of the prompts"
            stack.close()  # says what became of the questions
            out.print(f"against {rival.name}, asked as {spoken.template}")
            print_win_rate(result, len(result.wins_N))
            return
        out.print(win_rate_table(win_rates(config, known, rival, judge)))
        for key, found in differences(known, rival).items():
            label = f"{MEANS[key]}, less that of {rival.name}"
            out.print(f"{label}: {number(found.mean)}, {interval(found)}, {found.n} prompts")


def _assess(
    subject: str, recipe: str | None, storage: str, max_tokens: int | None, refresh: bool, **options: Any
) -> tuple[Config, Assessment]:
    """Of a run that is in the storage, else of a model."""
    from r2m.config import load, override
    from r2m.evaluation.subjects import finished_run, is_run
    from r2m.runs.folder import existing_folder

    if recipe is None:
        try:
            existing_folder(storage, subject)
        except UserError as error:
            raise UserError(f"{error}; a model needs --recipe, which says what it is asked") from None
        folder, _, config = finished_run(storage, subject)
        from r2m.evaluation.assess import assess, assess_policy

        if max_tokens is None:
            return config, assess(storage, subject, refresh=refresh, **options)
        return config, assess_policy(config, folder / "policy", max_tokens=max_tokens, **options)
    if is_run(storage, subject):
        raise UserError(f"--recipe {recipe!r}: {subject!r} is a run, which has its own")
    config = load(recipe, [override("run.storage", storage)])
    from r2m.evaluation.assess import assess_policy

    return config, assess_policy(config, subject, max_tokens=max_tokens, **options)
