"""A language model behind an endpoint as the judge: the options that commands share, and what they print."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r2m.cli.common import err, out
from r2m.errors import UserError

if TYPE_CHECKING:
    from r2m.evaluation.endpoint_judge import Cap
    from r2m.evaluation.win_rate import Judge, WinRate

JudgeUrl = Annotated[str | None, typer.Option(help="an OpenAI-compatible endpoint, such as http://HOST/v1")]
JudgeModel = Annotated[str | None, typer.Option(help="the model to ask for there")]
Verdicts = Annotated[Path | None, typer.Option(help="file that keeps every verdict; none is asked for twice")]
KeyEnv = Annotated[str | None, typer.Option(help="the environment variable that holds the endpoint's key")]
Template = Annotated[str, typer.Option(help="what the judge is asked: general or tldr")]
MaxCalls = Annotated[int | None, typer.Option(min=1, help="requests at most")]
MaxCost = Annotated[float | None, typer.Option(min=0.0, help="spend at most; needs the prices")]
PriceIn = Annotated[float, typer.Option(min=0.0, help="of a million tokens asked")]
PriceOut = Annotated[float, typer.Option(min=0.0, help="of a million tokens answered")]
Concurrency = Annotated[int, typer.Option(min=1)]


@contextmanager
def endpoint_judge(
    url: str, model: str, key_env: str | None, verdicts: Path, template: str, cap: Cap, concurrency: int
) -> Iterator[Judge]:
    """A language model as the judge; what became of its verdicts is said at the end."""
    from r2m.evaluation.chat_endpoint import ChatEndpoint
    from r2m.evaluation.endpoint_judge import EndpointJudge
    from r2m.evaluation.judge_prompts import TEMPLATES
    from r2m.evaluation.verdicts import VerdictStore

    with VerdictStore(verdicts) as store:
        endpoint = ChatEndpoint(url, model, key_env=key_env)
        judge = EndpointJudge(endpoint, TEMPLATES[template], store, cap, concurrency)
        yield judge
    err.print(str(judge.tally), markup=False)


def check_template(template: str) -> None:
    from r2m.evaluation.judge_prompts import TEMPLATES

    if template not in TEMPLATES:
        raise UserError(f"--template {template!r}: one of {', '.join(TEMPLATES)}")


def print_win_rate(result: WinRate, prompts: int) -> None:
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
