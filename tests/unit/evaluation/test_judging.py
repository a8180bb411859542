"""Judges that read texts, and how prompts reach them."""

import math
from typing import Any

import pytest
import torch
from made_assessments import response

from r2m.config import Config
from r2m.endpoint.judge_prompts import ResponsePair
from r2m.evaluation.bench import open_bench
from r2m.evaluation.judging import against, judges, named_judge, output_rows
from r2m.results.assessment import Response
from r2m.reward.inputs import response_ids
from r2m.tasks.prompt import Prompt, as_judges_read

QUESTION = {"role": "user", "content": "Why?"}


def rows(*items: tuple[Any, str]) -> list[Response]:
    return [response(prompt, text) for prompt, text in items]


def test_a_prompt_is_shown_as_plain_text_where_it_can_be() -> None:
    assert as_judges_read(Prompt(text=" as it is ")) == " as it is "
    assert as_judges_read(Prompt(messages=(QUESTION,))) == "Why?"
    turns = ({"role": "system", "content": "Be kind."}, QUESTION)
    assert as_judges_read(Prompt(messages=turns)) == "system: Be kind.\n\nuser: Why?"


def test_a_recipe_s_judges(config: Config, forum_models: tuple[str, str]) -> None:
    model = forum_models[1]
    bench = open_bench(config, prompts=1)
    assert [judge.name for judge in judges(bench)] == ["gold", "vanilla"]
    assert [judge.name for judge in judges(bench, "gold")] == ["gold", "vanilla"]
    assert [judge.name for judge in judges(bench, model)] == ["gold", "vanilla", model]
    own = config.model_copy(update={"run": config.run.model_copy(update={"judge": model})})
    assert [judge.name for judge in judges(open_bench(own, prompts=1), model)] == ["gold", "vanilla", model]


def test_the_frozen_judge_prefers_the_higher_score_and_says_nothing_of_what_is_too_long(config: Config) -> None:
    bench = open_bench(config, prompts=3)
    judge = named_judge(bench, "vanilla")
    texts = [" mom", " mom sold my tv", "", " i feel sad and need help"]

    def score(prompt: Prompt, text: str) -> float:
        ids = torch.tensor([response_ids(bench.reward_tokenizer, prompt, text)])
        with torch.no_grad():
            return float(bench.reward_model(ids, torch.ones_like(ids, dtype=torch.bool)))

    batch, expected = [], []
    for prompt in bench.prompts:
        for first in texts:
            for second in texts:
                batch.append(ResponsePair(as_judges_read(prompt), first, second))
                a, b = score(prompt, first), score(prompt, second)
                expected.append(0.5 if first == second else float(a > b))
    assert judge(batch) == expected
    too_long = ResponsePair(as_judges_read(bench.prompts[0]), " mom" * 100, " mom")
    assert judge([too_long, batch[0]]) == [None, expected[0]]
    assert math.isnan(judge.scores([too_long.prompt], [too_long.first])[0])


def test_rows_without_a_rival_take_no_part(config: Config) -> None:
    bench = open_bench(config, prompts=3)
    judge = named_judge(bench, "gold")
    ours = rows(*((p.text, str(p.reference)) for p in bench.prompts))
    assert against(judge, ours, [None] * 3) is None
    found = against(judge, ours, [None, " mom", str(bench.prompts[2].reference)])
    assert found is not None
    assert (found.wins_N, found.identical) == ((1.0, 0.5), 1)


def test_outputs_have_each_prompt_once() -> None:
    found = output_rows(rows(("a", "1"), ([QUESTION], "2"), ("a", "3")), "us", "forum")
    assert found == [
        {"instruction": "a", "output": "1", "generator": "us", "dataset": "forum"},
        {"instruction": "Why?", "output": "2", "generator": "us", "dataset": "forum"},
    ]


@pytest.mark.parametrize("judge", ["gold", "vanilla"])
def test_the_same_prompt_twice_is_judged_row_by_row(config: Config, judge: str) -> None:
    bench = open_bench(config, prompts=1)
    text = bench.prompts[0].text
    found = against(named_judge(bench, judge), rows((text, " a"), (text, " mom sold")), [" a", " mom sold"])
    assert found is not None
    assert found.identical == 2
