"""TRL's column formats, with TRL's own reading of them as the oracle where it has one."""

from typing import Any

import pytest
from trl import extract_prompt

from r2m.errors import UserError
from r2m.tasks.columns import comparable, completions, preference_pairs, prompts
from r2m.tasks.files import Rows
from r2m.tasks.prompt import Prompt

ROWS = [{"prompt": "a", "completion": " b"}, {"prompt": "c", "completion": " d"}]


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


CALL = {"type": "function", "function": {"name": "f", "arguments": {}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
IMAGE = {"type": "image"}


def test_completions_plain_conversational_and_as_messages() -> None:
    chat = Prompt(messages=(user("a"),))
    assert completions(ROWS) == [(Prompt(text="a"), " b"), (Prompt(text="c"), " d")]
    assert completions([{"prompt": [user("a")], "completion": [assistant("b")]}]) == [(chat, "b")]
    assert completions([{"messages": [user("a"), assistant("b")]}]) == [(chat, "b")]


def test_preference_pairs_plain_and_conversational() -> None:
    assert preference_pairs([{"prompt": "a", "chosen": " b", "rejected": " c"}]) == [(Prompt(text="a"), " b", " c")]
    row = {"prompt": [user("a")], "chosen": [assistant("b")], "rejected": [assistant("c")]}
    assert preference_pairs([row]) == [(Prompt(messages=(user("a"),)), "b", "c")]


def test_a_prompt_beside_whole_conversations_is_not_said_twice() -> None:
    row = {"prompt": "a", "chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("c")]}
    assert preference_pairs([row]) == [(Prompt(messages=(user("a"),)), "b", "c")]


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ([user("a"), assistant("b")], [user("a"), assistant("c")]),
        (
            [user("a"), assistant("b"), user("d"), assistant("e")],
            [user("a"), assistant("b"), user("d"), assistant("f")],
        ),
    ],
)
def test_implicit_conversational_prompts_as_trl_reads_them(chosen: Any, rejected: Any) -> None:
    oracle = extract_prompt({"chosen": chosen, "rejected": rejected})
    ((prompt, *texts),) = preference_pairs([{"chosen": chosen, "rejected": rejected}])
    assert list(prompt.messages or ()) == oracle["prompt"]
    assert texts == [oracle["chosen"][0]["content"], oracle["rejected"][0]["content"]]


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ("The sky is blue.", "The sky is green."),
        ("\n\nHuman: Hi\n\nAssistant: Hello", "\n\nHuman: Hi\n\nAssistant: Good day"),
    ],
)
def test_implicit_plain_prompts_as_trl_reads_them(chosen: str, rejected: str) -> None:
    oracle = extract_prompt({"chosen": chosen, "rejected": rejected})
    expected = (Prompt(text=oracle["prompt"]), oracle["chosen"], oracle["rejected"])
    assert preference_pairs([{"chosen": chosen, "rejected": rejected}]) == [expected]


def test_implicit_plain_prompts_end_with_a_whole_word() -> None:
    row = {"chosen": "Q: pets?\nA: I like cats", "rejected": "Q: pets?\nA: I like cars"}
    expected = (Prompt(text="Q: pets?\nA: I like"), " cats", " cars")
    assert preference_pairs([row]) == [expected]
    assert preference_pairs([{"chosen": "So it is", "rejected": "So it"}]) == [(Prompt(text="So"), " it is", " it")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "a", "answer": "b"}, "no column chosen, rejected; the data has question, answer"),
        ({"chosen": "yes", "rejected": "no"}, "row 0: without a prompt, chosen and rejected must begin with"),
        ({"chosen": "a b", "rejected": "a b"}, "row 0: chosen and rejected are one text"),
        ({"prompt": "a", "chosen": 3, "rejected": "b"}, "chosen is neither text nor a list of messages: chosen = 3"),
        ({"prompt": "a", "chosen": [], "rejected": []}, "row 0: chosen is empty"),
        ({"prompt": " ", "chosen": "b", "rejected": "c"}, "row 0: prompt is empty"),
        ({"prompt": [], "chosen": "b", "rejected": "c"}, "row 0: prompt is empty"),
        ({"prompt": [user("a"), assistant("b")], "chosen": "b", "rejected": "c"}, "prompt ends with the assistant's"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "no column rejected; the data has prompt, chosen"),
        (
            {"chosen": [user("a"), assistant("b")], "rejected": [user("x"), assistant("c")]},
            "row 0: chosen and rejected differ before the last answer",
        ),
        (
            {"chosen": [user("a")], "rejected": [user("a")]},
            "its last turn is not the assistant's: the last message of chosen is of 'user'",
        ),
        ({"chosen": [assistant("a")], "rejected": [assistant("b")]}, "row 0: nothing is before its answer"),
        (
            {"prompt": [user("a")], "chosen": [user("x"), assistant("b")], "rejected": [user("x"), assistant("c")]},
            "its answer's conversation is not the prompt's",
        ),
        (
            {"prompt": "a", "chosen": [user("x"), assistant("b")], "rejected": [user("x"), assistant("c")]},
            "its answer's conversation is not the prompt's",
        ),
        (
            {"prompt": "a", "chosen": [{"role": "assistant", "tool_calls": [CALL]}], "rejected": [assistant("c")]},
            "its answer is a call of tools, which is not text",
        ),
        (
            {"prompt": "a", "chosen": [assistant("b") | {"tool_calls": [CALL]}], "rejected": [assistant("c")]},
            "its answer is a call of tools, which is not text",
        ),
        ({"prompt": "a", "chosen": [{"role": None, "content": "b"}], "rejected": "c"}, "of text: role = None"),
        ({"prompt": "a", "chosen": [{"role": 3, "content": "b"}], "rejected": "c"}, "has no role of text: role = 3"),
        ({"prompt": "a", "chosen": ["b"], "rejected": "c"}, "neither text nor a list of messages: a message is 'b'"),
        ({"prompt": "a", "chosen": [assistant(None)], "rejected": "c"}, "has no content of text: content = None"),
        ({"prompt": "a", "chosen": [assistant([IMAGE])], "rejected": "c"}, "has a part that is not text: a part"),
        ({"prompt": "\ud800", "chosen": "b", "rejected": "c"}, "prompt has half of a surrogate pair"),
        ({"prompt": "a", "chosen": "b", "rejected": "\udfff c"}, "rejected has half of a surrogate pair"),
        ({"prompt": [user("\ud83d")], "chosen": "b", "rejected": "c"}, "prompt has half of a surrogate pair"),
        ({"prompt": "a", "chosen": str([assistant("b")]), "rejected": "c"}, "is a conversation written as text"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "tools": [TOOL]}, "tools are beside a plain prompt"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "system": "d"}, "a system text is beside a plain prompt"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "images": ["d"]}, "it has images; only text is read"),
        ({"prompt": [user("a")], "chosen": "b", "rejected": "c", "tools": "[}"}, "tools is not JSON: tools = '\\[}'"),
        ({"prompt": [user("a")], "chosen": "b", "rejected": "c", "tools": {"d": 1}}, "tools is not a list of JSON"),
        ({"question": "a b", "chosen": "It is b", "rejected": "It is c"}, "no column prompt, and question may be"),
        ({"system": "a", "chosen": "It is b", "rejected": "It is c"}, "no column prompt, and system may be one"),
        (
            {"prompt": [user("a")], "chosen": "b", "rejected": "c", "chat_template_kwargs": {"messages": []}},
            "chat_template_kwargs sets what is not a row's to set: messages",
        ),
        (
            {"prompt": [user("a")], "chosen": "b", "rejected": "c", "chat_template_kwargs": {"tokenize": True}},
            "chat_template_kwargs sets what is not a row's to set: tokenize",
        ),
    ],
)  # fmt: skip
def test_malformed_preferences_are_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        preference_pairs([row])
    assert "\n" not in str(caught.value)


GOOD = {"prompt": "a", "chosen": " b", "rejected": " c"}


def test_a_bad_row_among_many_is_left_out_and_counted() -> None:
    rows = Rows(
        [GOOD] * 18 + [GOOD | {"prompt": None}, {"chosen": " b", "rejected": " c"}], "data = 'x'", range(1, 21)
    )
    pairs = preference_pairs(rows)
    assert pairs == [(Prompt(text="a"), " b", " c")] * 18
    assert pairs.left_out == {"it has no prompt": 2}
    assert str(pairs.left_out) == "2 of 20 rows left out: 2: it has no prompt (first: line 19)"
    assert pairs.left_out.tree() == {"it has no prompt": {"rows": 2, "first": "line 19"}}
    assert prompts(rows, "prompt").left_out == {"it has no prompt": 2}


def test_more_than_a_tenth_of_bad_rows_is_refused_with_the_first() -> None:
    bad = [{"prompt": "a", "chosen": 3, "rejected": " c"}, {"prompt": None}]
    message = (
        r"^data = 'x': 2 of 19 rows cannot be used, and at most 10% may be; the first: line 18: "
        r"chosen is neither text nor a list of messages: chosen = 3$"
    )
    with pytest.raises(UserError, match=message):
        preference_pairs(Rows([GOOD] * 17 + bad, "data = 'x'", range(1, 20)))


@pytest.mark.parametrize(
    "bad",
    [
        {"prompt": "a"},
        {"completion": " b"},
        {},
        {"prompt": [], "completion": " b"},
        {"prompt": None, "completion": [assistant("b")]},
        {"prompt": "a", "completion": [{"role": "assistant", "tool_calls": [{"type": "function"}]}]},
        {"prompt": "a", "completion": "\ud800"},
    ],
)
def test_a_bad_row_of_a_supervised_set_harms_neither_stage(bad: dict[str, Any]) -> None:
    rows = [{"prompt": "a", "completion": " b"}] * 9 + [bad]
    assert completions(rows) == [(Prompt(text="a"), " b")] * 9
    assert prompts(rows, "prompt") == [Prompt(text="a", reference=" b")] * 9


def test_equal_and_empty_answers_are_no_pairs_but_prompts() -> None:
    rows = [
        {"prompt": "a", "chosen": " b", "rejected": " c"},
        {"prompt": "d", "chosen": " b", "rejected": " b"},
        {"prompt": "e", "chosen": " b", "rejected": ""},
        {"prompt": "f", "chosen": "\n", "rejected": " b"},
        {"prompt": "g", "chosen": "", "rejected": ""},
    ]
    pairs = comparable(preference_pairs(rows))
    assert [prompt.text for prompt, _, _ in pairs] == ["a"]
    assert pairs.left_out == {"chosen and rejected are equal": 2, "chosen or rejected is empty": 2}
    assert pairs.left_out.first == {
        "chosen and rejected are equal": "row 1", "chosen or rejected is empty": "row 2",
    }  # fmt: skip
    assert [prompt.text for prompt in prompts(rows, "prompt")] == ["a", "d", "e", "f", "g"]


class TestAnswersThatRepeatThePrompt:
    def test_plain(self) -> None:
        rows = [{"prompt": f"Q{i}", "chosen": f"Q{i} b", "rejected": f"Q{i} c"} for i in range(3)]
        expected = [(Prompt(text=f"Q{i}"), " b", " c") for i in range(3)]
        assert preference_pairs(rows) == expected
        assert prompts(rows, "prompt")[2] == Prompt(text="Q2", reference=" b")
        assert completions([{"prompt": "a", "completion": "a b"}]) == [(Prompt(text="a"), " b")]

    def test_both_answers_do_or_neither_is_touched(self) -> None:
        rows = [{"prompt": "a", "chosen": "a b", "rejected": "c"}]
        assert preference_pairs(rows) == [(Prompt(text="a"), "a b", "c")]

    def test_all_rows_do_or_none_is_touched(self) -> None:
        repeating = [{"prompt": "a", "chosen": "a b", "rejected": "a c"}]
        rows = repeating * 8 + [{"prompt": "a", "chosen": " b", "rejected": " c"}] * 2
        assert [chosen for _, chosen, _ in preference_pairs(rows)] == ["a b"] * 8 + [" b"] * 2
        pairs = preference_pairs(repeating + rows[:9])
        assert [chosen for _, chosen, _ in pairs] == [" b"] * 9
        assert pairs.left_out == {"its answers do not begin with the prompt, as the others do": 1}

    def test_conversational(self) -> None:
        asked = [user("a"), assistant("b"), user("c")]
        row = {"prompt": asked, "chosen": [*asked, assistant("d")], "rejected": [*asked, assistant("e")]}
        assert preference_pairs([row]) == [(Prompt(messages=tuple(asked)), "d", "e")]


def test_a_completion_of_several_turns_follows_the_prompt() -> None:
    row = {"prompt": [user("a")], "completion": [assistant("b"), user("c"), assistant("d")]}
    assert completions([row]) == [(Prompt(messages=(user("a"), assistant("b"), user("c"))), "d")]


def test_calls_of_tools_before_the_answer_need_no_content() -> None:
    call = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f"}}]}
    asked = [user("a"), call, {"role": "tool", "name": "f", "content": "3"}]
    row = {"messages": [*asked, assistant("b")], "tools": '[{"type": "function"}]', "chat_template_kwargs": {"x": 1}}
    expected = Prompt(messages=tuple(asked), template={"tools": [{"type": "function"}], "x": 1})
    assert completions([row]) == [(expected, "b")]


def test_null_keys_of_a_table_of_structs_mean_nothing() -> None:
    asked, answer = user("a") | {"tool_calls": None}, assistant("b") | {"tool_calls": None}
    row = {"prompt": [user("a")], "chosen": [asked, answer], "rejected": [asked, assistant("c")], "tools": None}
    ((prompt, *texts),) = preference_pairs([row])
    assert (prompt.messages, prompt.template, texts) == ((asked,), None, ["b", "c"])


def test_rows_know_where_they_are_from() -> None:
    rows = Rows([GOOD, GOOD], "task.data = 'x'", [3, 5])
    assert [p.origin for p in prompts(rows, "prompt")] == ["task.data = 'x', line 3", "task.data = 'x', line 5"]


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [
        ({"prompt": "a"}, "prompt", Prompt(text="a")),
        ({"prompt": [user("a")]}, "prompt", Prompt(messages=(user("a"),))),
        ({"instruction": "a", "output": "b"}, "instruction", Prompt(text="a")),
        ({"prompt": "a", "completion": " b"}, "prompt", Prompt(text="a", reference=" b")),
        ({"prompt": "a", "chosen": " b", "rejected": " c"}, "prompt", Prompt(text="a", reference=" b")),
        ({"chosen": "a b", "rejected": "a c"}, "prompt", Prompt(text="a", reference=" b")),
        ({"messages": [user("a"), assistant("b")]}, "messages", Prompt(messages=(user("a"),), reference="b")),
        ({"messages": [user("a"), assistant("b")]}, "prompt", Prompt(messages=(user("a"),), reference="b")),
        ({"messages": [user("a")]}, "messages", Prompt(messages=(user("a"),))),
    ],
)
def test_prompts_have_a_reference_where_the_rows_do(row: dict[str, Any], column: str, expected: Prompt) -> None:
    assert prompts([row], column) == [expected]


def test_a_missing_prompt_column_is_named_with_those_there_are() -> None:
    with pytest.raises(UserError, match="no column question; the data has prompt, completion"):
        prompts(ROWS, "question")
