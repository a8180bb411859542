"""Win rates of responses by the judges of a recipe: its gold program, its vanilla reward model, any other model."""

import math
from collections.abc import Sequence

import torch

from r2m.core.masking import pad
from r2m.errors import UserError
from r2m.evaluation.bench import Bench, device_of
from r2m.evaluation.win_rate import Judge, ScoreJudge, WinRate, win_rate
from r2m.models.families import context_of
from r2m.models.loading import load_tokenizer
from r2m.results.assessment import Response, Wins
from r2m.reward.inputs import response_ids
from r2m.reward.loading import load_reward_model
from r2m.tasks.answer import frame
from r2m.tasks.prompt import Prompt, as_judges_read


def judges(bench: Bench, other: str | None = None) -> list[ScoreJudge]:
    """Gold where the task has one, the vanilla reward model, run.judge where it is set, and `other`, a reward model's
    folder or hub id, unless it names one of them. They read texts: a response is scored as one that has ended."""
    gold = None if bench.gold is None else "gold"
    names = dict.fromkeys((gold, "vanilla", bench.config.run.judge, other))
    return [named_judge(bench, name) for name in names if name is not None]


def named_judge(bench: Bench, name: str) -> ScoreJudge:
    """ "gold", "vanilla" or a reward model. Raises UserError for gold where the task has none, or no such model."""
    prompt_of = {as_judges_read(prompt): prompt for prompt in bench.prompts}
    if name == "gold":
        gold = bench.gold
        if gold is None:
            raise UserError(
                f"--judge 'gold': {bench.config.recipe} has no gold program; vanilla or a model is allowed"
            )
        return ScoreJudge(name, lambda prompts, texts: gold([prompt_of[p] for p in prompts], texts))
    model, tokenizer = bench.reward_model, bench.reward_tokenizer
    if name != "vanilla":
        tokenizer = load_tokenizer(name, "--judge")
        model, _ = load_reward_model(name, "float32", device_of(bench.config), "--judge")
        if bench.prompts[0].messages is not None:
            frame(bench.prompts[0], tokenizer)  # it shows answers, or is refused
    limit = context_of(model.model.config) or math.inf

    @torch.no_grad()
    def scores(prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
        """NaN, which is no answer, for what is longer than the model's context."""
        ids = [response_ids(tokenizer, prompt_of[p], text) for p, text in zip(prompts, texts, strict=True)]
        values = [math.nan] * len(ids)
        fit = [i for i, sequence in enumerate(ids) if len(sequence) <= limit]
        size, device = bench.config.algorithm.microbatch, model.phi.weight.device
        for start in range(0, len(fit), size):
            part = fit[start : start + size]
            batch, mask = pad([ids[i] for i in part], tokenizer.pad_token_id or 0, "right")
            for i, value in zip(part, model(batch.to(device), mask.to(device)).tolist(), strict=True):
                values[i] = value
        return values

    return ScoreJudge(name, scores)


def asked(row: Response) -> str:
    """A row's prompt as judges read it."""
    return as_judges_read(Prompt.of(row.prompt))


def against(judge: Judge, rows: Sequence[Response], rivals: Sequence[str | None]) -> WinRate | None:
    """The rows' responses against these, row by row; None where there are none of them."""
    kept = [(row, rival) for row, rival in zip(rows, rivals, strict=True) if rival is not None]
    if not kept:
        return None
    responses = [row.response for row, _ in kept]
    return win_rate(judge, [asked(row) for row, _ in kept], responses, [rival for _, rival in kept])


def output_rows(rows: Sequence[Response], generator: str, dataset: str) -> list[dict[str, str]]:
    """The rows' responses in AlpacaEval's format; of a prompt that is there twice, the first."""
    first = {asked(row): row.response for row in reversed(rows)}
    return [
        {"instruction": prompt, "output": first[prompt], "generator": generator, "dataset": dataset}
        for prompt in dict.fromkeys(map(asked, rows))
    ]


def kept(w: WinRate, rival: str) -> Wins:
    """What an assessment keeps of a win rate."""
    mean, interval, n = (w.rate.mean, w.rate.interval, w.rate.n) if w.rate else (None, None, 0)
    return Wins(w.judge, rival, mean, interval, w.ties, w.identical, w.unanswered, n, w.length_controlled)
