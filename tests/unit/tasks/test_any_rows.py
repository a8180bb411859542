"""Whatever a file or a row holds: it is read, or refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r2m.errors import UserError
from r2m.tasks.columns import comparable, completions, preference_pairs, prompts
from r2m.tasks.files import SUFFIXES, Rows, read_rows
from r2m.tasks.prompt import Prompt

COLUMNS = ["prompt", "completion", "messages", "conversations", "chosen", "rejected", "instruction", "input",
           "output", "system", "history", "tools", "chat_template_kwargs", "images", "a\nb"]  # fmt: skip
KEYS = ["role", "content", "from", "value", "tool_calls", "type", "text"]
SPEAKERS = ["user", "assistant", "system", "tool", "human", "gpt", None, 3]
TEXT = st.sampled_from(
    ["", " ", "a", "a b", "a c", "天空", "\ud800", "[]", '[{"role"', "text", "\n\nHuman: a\n\nAssistant: b"]
)

leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT)
anything = st.recursive(
    leaves,
    lambda of: st.one_of(st.lists(of, max_size=3), st.dictionaries(st.sampled_from(KEYS), of, max_size=3)),
    max_leaves=6,
)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(SPEAKERS), "content": st.one_of(TEXT, anything)}, optional={"tool_calls": anything}
)
shared = st.fixed_dictionaries({"from": st.sampled_from(SPEAKERS), "value": st.one_of(TEXT, anything)})
values = st.one_of(TEXT, st.lists(message, max_size=4), st.lists(shared, max_size=4), shared, anything)
rows_of = st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=5, unique=True).flatmap(
    lambda columns: st.lists(st.dictionaries(st.sampled_from(columns), values), min_size=1, max_size=4)
)


def one_line(error: UserError) -> None:
    said = str(error).encode().decode()  # which half of a surrogate pair would fail
    assert said.splitlines() == [said]


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(rows_of, st.sampled_from(COLUMNS))
def test_rows_are_read_or_refused_and_none_is_lost(rows: list[dict[str, Any]], column: str) -> None:
    many = rows + [{"prompt": "a", "completion": "b", "chosen": "c", "rejected": "d"}] * 40
    for table in (rows, many):
        for read in (
            completions,
            preference_pairs,
            lambda t: comparable(preference_pairs(t)),
            lambda t: prompts(t, column),
        ):
            try:
                found = read(Rows(table))
            except UserError as error:
                one_line(error)
            else:
                assert len(found) + sum(found.left_out.values()) == len(table)
                str(found.left_out).encode()
                for item in found:
                    prompt, *answers = (item,) if isinstance(item, Prompt) else item
                    json.dumps([prompt.text, prompt.messages, answers], ensure_ascii=False).encode()
                    assert all(isinstance(answer, str) for answer in answers)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(SUFFIXES),
    st.one_of(
        st.binary(max_size=40),
        st.text(st.sampled_from('[]{}",:\n\ra1\u2028\x00'), max_size=30).map(str.encode),
        anything.map(lambda value: json.dumps(value).encode()),
        st.lists(anything, max_size=3).map(lambda lines: "\n".join(map(json.dumps, lines)).encode("utf-16")),
    ),
)
def test_files_are_read_or_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(content)
    try:
        rows = read_rows(str(path))
    except UserError as error:
        one_line(error)
    else:
        assert all(isinstance(row, dict) and rows.place(i) for i, row in enumerate(rows))


def test_a_column_of_many_lines_is_named_in_one() -> None:
    with pytest.raises(UserError, match=r"no column prompt; the data has a b, c\\ud800$"):
        prompts([{"a\nb": 1, "c\ud800": 2}], "prompt")
