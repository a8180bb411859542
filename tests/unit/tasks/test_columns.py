"""TRL's column formats, with TRL's own reading of them as the oracle where it has one."""

import gzip
import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pyarrow
import pytest
from pyarrow import parquet
from trl import extract_prompt

from r2m.errors import UserError
from r2m.tasks.columns import completions, preference_pairs, prompts, read_rows
from r2m.tasks.prompt import Prompt

ROWS = [{"prompt": "a", "completion": " b"}, {"prompt": "c", "completion": " d"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", LINES.encode()),
        ("rows.jsonl", LINES.replace("\n", "\n\n").encode()),
        ("rows.json", LINES.encode()),
        ("rows.json", json.dumps(ROWS, indent=1).encode()),
        ("rows.jsonl.gz", gzip.compress(LINES.encode())),
        ("rows.json.gz", gzip.compress(json.dumps(ROWS).encode())),
    ],
)
def test_local_json(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_rows(str(tmp_path / name)) == ROWS


def test_a_line_separator_inside_a_text_is_not_a_new_row(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a\u2028b"}\n')
    assert read_rows(str(tmp_path / "rows.jsonl")) == [{"prompt": "a\u2028b"}]


def test_local_parquet(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "chosen": [user("a"), assistant("b")]}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert read_rows(str(tmp_path / "rows.parquet")) == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", None, "no such file"),
        ("rows.jsonl", b"", "no rows"),
        ("rows.json", b"[]", "no rows"),
        ("rows.jsonl", LINES.encode() + b'{"prompt": "e"\n', "line 3 is not JSON"),
        ("rows.jsonl", LINES.encode() + b'"e"\n', "row 2 is a str"),
        ("rows.jsonl", b"\xff\xfe\n", "cannot be read"),
        ("rows.jsonl.gz", LINES.encode(), "cannot be read"),
        ("rows.jsonl.gz", gzip.compress(LINES.encode())[:-9], "cannot be read"),
        ("rows.parquet", LINES.encode(), "cannot be read"),
        ("rows.csv", b"prompt\na\n", r"must end in \.jsonl, \.json, "),
    ],
)
def test_unusable_files_are_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_rows(str(path), field="--data")
    assert str(caught.value).startswith(f"--data = {str(path)!r}: ")
    assert "\n" not in str(caught.value)


def test_an_unreachable_data_set_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = r"task\.data = 'nobody/nothing', split 'test': neither a local file"
    with pytest.raises(UserError, match=message) as caught:
        read_rows("nobody/nothing", split="test")
    assert "\n" not in str(caught.value)


def test_completions_plain_conversational_and_as_messages() -> None:
    chat = Prompt(messages=(user("a"),))
    assert completions(ROWS) == [(Prompt(text="a"), " b"), (Prompt(text="c"), " d")]
    assert completions([{"prompt": [user("a")], "completion": [assistant("b")]}]) == [(chat, "b")]
    assert completions([{"messages": [user("a"), assistant("b")]}]) == [(chat, "b")]


def test_preference_pairs_plain_and_conversational() -> None:
    assert preference_pairs([{"prompt": "a", "chosen": " b", "rejected": " c"}]) == [
        (Prompt(text="a"), " b", " c")
    ]
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
    assert preference_pairs([{"chosen": "So it is", "rejected": "So it"}]) == [
        (Prompt(text="So"), " it is", " it")
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "a", "answer": "b"}, "no column chosen, rejected; the data has question, answer"),
        ({"chosen": "yes", "rejected": "no"}, "row 0: without a prompt column"),
        ({"prompt": "a", "chosen": 3, "rejected": "b"}, "row 0, chosen = '3': text or a list of messages"),
        ({"prompt": "a", "chosen": [], "rejected": []}, "row 0, chosen = '\\[\\]'"),
        (
            {"chosen": [user("a"), assistant("b")], "rejected": [user("x"), assistant("c")]},
            "row 0: chosen and rejected must be the same conversation",
        ),
        ({"chosen": [user("a")], "rejected": [user("a")]}, "last message is the user's"),
        ({"chosen": [assistant("a")], "rejected": [assistant("b")]}, "no column prompt"),
        (
            {"prompt": [user("a")], "chosen": [user("x"), assistant("b")], "rejected": [user("x"), assistant("c")]},
            "one message of the assistant's must follow the prompt",
        ),
    ],
)  # fmt: skip
def test_malformed_preferences_are_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        preference_pairs([row])


def test_a_malformed_row_is_named_by_its_number() -> None:
    with pytest.raises(UserError, match="row 1, completion"):
        completions([*ROWS[:1], {"prompt": "a", "completion": None}])


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
    ],
)
def test_prompts_have_a_reference_where_the_rows_do(
    row: dict[str, Any], column: str, expected: Prompt
) -> None:
    assert prompts([row], column) == [expected]


def test_a_missing_prompt_column_is_named_with_those_there_are() -> None:
    with pytest.raises(UserError, match="no column question; the data has prompt, completion"):
        prompts(ROWS, "question")
