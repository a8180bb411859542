"""Other forms of rows than TRL's, worked by hand."""

from typing import Any

import pytest

from r2m.errors import UserError
from r2m.tasks.columns import completions, preference_pairs, prompts
from r2m.tasks.prompt import Prompt


def chat(*turns: tuple[str, str], **more: Any) -> Prompt:
    return Prompt(messages=tuple({"role": role, "content": content} for role, content in turns), **more)


def said(speaker: str, value: Any) -> dict[str, Any]:
    return {"from": speaker, "value": value}


SHAREGPT = [said("system", "s"), said("human", "a"), said("gpt", "b"), said("human", "c"), said("gpt", "d")]


def test_sharegpt() -> None:
    asked = (("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"))
    assert completions([{"conversations": SHAREGPT}]) == [(chat(*asked), "d")]
    assert completions([{"id": "1", "system": "s", "conversations": SHAREGPT[1:]}]) == [(chat(*asked), "d")]
    for column in ("prompt", "conversations"):
        assert prompts([{"conversations": SHAREGPT}], column) == [chat(*asked, reference="d")]
        assert prompts([{"conversations": SHAREGPT[:-1]}], column) == [chat(*asked)]


def test_sharegpt_with_preferences() -> None:
    row = {"conversations": SHAREGPT[:-1], "chosen": said("gpt", "d"), "rejected": said("gpt", "e"), "tools": ""}
    asked = chat(("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"))
    assert preference_pairs([row]) == [(asked, "d", "e")]
    assert prompts([row], "prompt")[0].reference == "d"
    assert prompts([row], "conversations")[0].reference == "d"


@pytest.mark.parametrize(("asks", "answers"), [("Human", "GPT"), ("user", "bard"), ("human", "Claude")])
def test_sharegpt_under_other_names(asks: str, answers: str) -> None:
    assert completions([{"conversations": [said(asks, "a"), said(answers, "b")]}]) == [(chat(("user", "a")), "b")]


def test_conversations_of_roles() -> None:
    row = {"conversations": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    assert completions([row]) == [(chat(("user", "a")), "b")]


@pytest.mark.parametrize("more", ["", None])
def test_alpaca(more: str | None) -> None:
    rows = [
        {"instruction": "a", "input": more, "output": "b"},
        {"instruction": "c", "input": "d", "output": "e", "history": [], "system": ""},
    ]
    assert completions(rows) == [(Prompt(text="a"), "b"), (Prompt(text="c\nd"), "e")]
    assert prompts(rows, "prompt") == [Prompt(text="a", reference="b"), Prompt(text="c\nd", reference="e")]


def test_alpaca_with_preferences() -> None:
    row = {"instruction": "a", "input": "b", "chosen": "c", "rejected": "d"}
    assert preference_pairs([row]) == [(Prompt(text="a\nb"), "c", "d")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"conversations": [said("human", "a"), said("bob", "b")]}, "unknown from: from = 'bob'"),
        ({"conversations": [said("human", "a"), said("function_call", "{}")]}, "from = 'function_call'"),
        ({"conversations": [said("human", None), said("gpt", "b")]}, "no content of text: content = None"),
        ({"instruction": "a", "output": "b", "history": [["c", "d"]]}, "a history of earlier turns"),
        ({"conversations": SHAREGPT, "system": "t"}, "a system text is beside a conversation that has one"),
        ({"instruction": "a", "output": "b", "system": "c"}, "a system text is beside a plain prompt"),
        ({"instruction": None, "input": "a", "output": "b"}, "no column completion; the data has instruction"),
    ],
)
def test_what_would_be_lost_is_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        completions([row])


def test_content_in_parts() -> None:
    parts = [{"type": "text", "text": "a", "image": None}, {"type": "text", "text": " b"}]
    rows = [
        {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": parts[:1]}]},
        {"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "a"}]},
    ]
    assert completions(rows) == [(chat(("user", "a b")), "a")] * 2


def test_a_system_text_in_few_rows_is_not_dropped() -> None:
    plain, system = {"conversations": SHAREGPT[1:]}, {"conversations": SHAREGPT[1:], "system": "s"}
    found = completions([plain] * 9 + [system])
    assert [prompt.messages[0]["role"] for prompt, _ in found if prompt.messages] == ["user"] * 9 + ["system"]
