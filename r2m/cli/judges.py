"""A language model behind an endpoint as the judge: the options that commands share, and what they print."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from r2m.cli.common import err, out
from r2m.cli.options import home
from r2m.errors import UserError

if TYPE_CHECKING:
    from r2m.evaluation.win_rate import Judge, WinRate


@dataclass(frozen=True)
class JudgeOptions:
    """For `with_options`."""

    judge_url: Annotated[str | None, Option(help="an OpenAI-compatible endpoint, like http://HOST/v1")] = None
    judge_model: Annotated[str | None, Option(help="the model to ask for there")] = None
    verdicts: Annotated[Path | None, Option(callback=home, help="file of all verdicts; none is asked for twice")] = (
        None
    )
    template: Annotated[str, Option(help="what the judge is asked: general or tldr")] = "general"
    key_env: Annotated[str | None, Option(help="the environment variable that holds the endpoint's key")] = None
    judge_max_tokens: Annotated[int | None, Option(min=1, help="of a reply with its reasoning; else 256")] = None
    judge_body: Annotated[
        list[str] | None,
        Option(metavar="KEY=JSON", help="a field of the request's body, taken out by null; may be repeated"),
    ] = None
    max_calls: Annotated[int | None, Option(min=1, help="requests at most")] = None
    max_cost: Annotated[float | None, Option(min=0.0, help="spend at most; needs the prices")] = None
    price_in: Annotated[float, Option(min=0.0, help="of a million tokens asked")] = 0.0
    price_out: Annotated[float, Option(min=0.0, help="of a million tokens answered")] = 0.0
    concurrency: Annotated[int, Option(min=1, max=256, help="requests at a time")] = 4

    def check(self) -> None:
        """Raises UserError for a template that is not there, and for options that do not go together."""
        from r2m.endpoint.judge_prompts import TEMPLATES

        if self.template not in TEMPLATES:
            raise UserError(f"--template {self.template!r}: one of {', '.join(TEMPLATES)}")
        if self.judge_url is not None:
            if self.judge_model is None or self.verdicts is None:
                raise UserError("--judge-url: --judge-model and --verdicts are needed with it")
            if importlib.util.find_spec("openai") is None:
                raise UserError("--judge-url: asking needs the package openai: pip install 'r2m[judge]'")
            return
        for option in fields(self):
            of_verdicts = option.name in ("judge_model", "verdicts", "template")
            if not of_verdicts and (getattr(self, option.name) or option.default) != option.default:
                raise UserError(f"--{option.name.replace('_', '-')}: --judge-url is needed with it")

    @contextmanager
    def judge(self) -> Iterator[Judge | None]:
        """A language model, whose tally is said at the end; without an address the verdicts on file; None without
        either."""
        from r2m.endpoint.judge_prompts import TEMPLATES
        from r2m.evaluation.verdicts import VerdictStore, stored_judge

        self.check()
        template, file = TEMPLATES[self.template], self.verdicts
        if self.judge_url is None or self.judge_model is None or file is None:
            yield None if file is None else stored_judge(file, template.text, self.judge_model)
            return
        from r2m.endpoint.chat_endpoint import ChatEndpoint
        from r2m.endpoint.chat_format import request_body
        from r2m.evaluation.endpoint_judge import Cap, EndpointJudge

        cap = Cap(self.max_calls, self.max_cost, self.price_in, self.price_out)
        body = request_body(self.judge_body or (), self.judge_max_tokens)
        endpoint = ChatEndpoint(self.judge_url, self.judge_model, key_env=self.key_env, body=body)
        with VerdictStore(file) as store:
            judge = EndpointJudge(endpoint, template, store, cap, self.concurrency)
            try:
                yield judge
            except BaseException:
                if judge.tally.answered:  # and paid for
                    err.print(str(judge.tally))
                raise
        err.print(str(judge.tally))


def check_out(to: Path | None, *read: str | Path | None) -> None:
    """Raises UserError where a file cannot be written there, or is one that the command reads."""
    if to is None:
        return
    part = Path(f"{to}.part")
    try:
        if not to.absolute().parent.is_dir():
            raise UserError(f"--out {str(to)!r}: no such folder")
        if to.is_dir():
            raise UserError(f"--out {str(to)!r}: a folder; a file's name is needed")
        part.touch()  # what is asked for in between costs time or money
        part.unlink()
    except OSError as error:
        raise UserError(f"--out {str(to)!r}: cannot be written ({error.strerror})") from None
    if any(file is not None and Path(file).resolve() == to.resolve() for file in read):
        raise UserError(f"--out {str(to)!r}: this command reads that file")


def print_win_rate(result: WinRate, prompts: int) -> None:
    """Rates in per cent."""
    if result.rate is None:
        raise UserError(f"judge = {result.judge!r}: no usable verdict on any of {prompts} prompts")
    out.print(f"judge {result.judge}, both orders, {prompts} prompts")
    out.print(f"win rate {100 * result.rate.mean:.1f} %{_between(result.rate.interval)}")
    equal, apart = f"{result.identical} equal responses", f"{result.contradictory} where the orders contradict"
    out.print(f"{result.ties} ties ({equal}, {apart}), {result.unanswered} left out")
    if (even := result.length_controlled) is not None:
        out.print(f"length-controlled {100 * even.rate:.1f} %{_between(even.interval)}")


def _between(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f", 95 % interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
