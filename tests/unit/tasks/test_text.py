"""Tasks made of data: what is kept, what is held out, what is said of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import normalizers

from r2m.config import ForumTask, TextTask
from r2m.errors import UserError
from r2m.tasks.forum import forum_tokenizer
from r2m.tasks.load import load_task
from r2m.tasks.prompt import Prompt
from r2m.tasks.task import LeftOut
from r2m.tasks.text import accepted, shaped, text_task

ROWS = [{"prompt": "mom" + " sad" * i, "completion": " help" * i} for i in range(6)]  # i + 1 and i tokens


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = tmp_path / "posts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


def texts(prompts: Any) -> list[str]:
    return [prompt.text for prompt in prompts]


def test_rows_are_held_out_off_the_end(data: str) -> None:
    task = text_task(TextTask(data=data, held_out=2))
    assert texts(task.train) == [row["prompt"] for row in ROWS[:4]]
    assert texts(task.held_out) == [row["prompt"] for row in ROWS[4:]]
    assert task.train[1].reference == " help"
    assert task.gold is None
    assert task.left_out == {}


def test_limit_counts_usable_rows(data: str) -> None:
    section = TextTask(data=data, held_out=1, limit=2, max_chosen_tokens=4, max_prompt_tokens=10)
    assert texts(text_task(section, forum_tokenizer()).train) == ["mom"]


def test_rows_above_a_limit_in_tokens_are_left_out_and_counted(data: str) -> None:
    section = TextTask(data=data, held_out=1, max_prompt_tokens=4, max_chosen_tokens=4)
    task = text_task(section, forum_tokenizer())
    # Prompts have 1 to 6 tokens, completions 0 to 5: 4 rows fit, one more only its completion does.
    assert texts([*task.train, *task.held_out]) == [row["prompt"] for row in ROWS[:4]]
    assert task.left_out == {"max_prompt_tokens": 1, "max_chosen_tokens": 1}


def test_limits_in_tokens_need_a_tokenizer(data: str) -> None:
    with pytest.raises(ValueError, match="tokenizer = None"):
        text_task(TextTask(data=data, held_out=1, max_prompt_tokens=4))


def test_max_chosen_tokens_needs_chosen_responses(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "mom"}\n' * 3)
    section = TextTask(data=str(tmp_path / "p.jsonl"), held_out=1, max_chosen_tokens=4)
    with pytest.raises(UserError, match=r"task\.max_chosen_tokens = 4: .* has neither chosen nor completion"):
        text_task(section, forum_tokenizer())


def test_something_must_be_left_to_train_on(data: str) -> None:
    with pytest.raises(UserError, match=r"task\.held_out = 6: it must be less than the 6 usable rows"):
        text_task(TextTask(data=data, held_out=6))


def test_the_data_sets_name_the_file_but_not_where_it_lay(data: str) -> None:
    train, held_out = text_task(TextTask(name="posts", data=data, held_out=2)).datasets
    assert train | {"digest": ""} == {
        "name": "posts-train", "digest": "", "source": "posts.jsonl", "rows": 4, "split": "train",
    }  # fmt: skip
    assert (held_out["rows"], held_out["split"]) == (2, "held-out")
    # What the policy is asked is what the digest is of.
    asked = text_task(TextTask(name="posts", data=data, held_out=2, instruction="Summarise."))
    assert asked.datasets[0]["digest"] != train["digest"]


@pytest.mark.parametrize(
    ("instruction", "as_chat", "expected"),
    [
        (None, False, Prompt(text="a", reference="r")),
        ("Do:", False, Prompt(text="Do:\n\na", reference="r")),
        (None, True, Prompt(messages=({"role": "user", "content": "a"},), reference="r")),
        ("Do:", True, Prompt(messages=({"role": "user", "content": "Do:\n\na"},), reference="r")),
    ],
)
def test_shaped(instruction: str | None, as_chat: bool, expected: Prompt) -> None:
    assert shaped(Prompt(text="a", reference="r"), instruction, as_chat) == expected


def test_a_conversation_is_shaped_already() -> None:
    chat = Prompt(messages=({"role": "user", "content": "a"},))
    assert shaped(chat, None, False) is chat
    with pytest.raises(UserError, match="a conversation already"):
        shaped(chat, None, True)


def test_load_task_goes_by_kind(data: str) -> None:
    assert load_task(ForumTask(posts=3, held_out=2)).name == "forum"
    assert load_task(TextTask(name="posts", data=data, held_out=1)).name == "posts"


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_unusable_rows_are_left_out_and_said_with_the_data_sets(tmp_path: Path) -> None:
    data = written(tmp_path / "p.jsonl", [{"prompt": f"mom{' sad' * i}"} for i in range(19)] + [{"text": "x"}])
    task = text_task(TextTask(data=data, held_out=1, max_prompt_tokens=18), forum_tokenizer())
    assert task.left_out == {"it has no prompt": 1, "max_prompt_tokens": 1}
    assert task.datasets[0]["left_out"] == (
        f"task.data = {data!r}: 2 of 20 rows left out: 1: it has no prompt (first: line 20); "
        "1: max_prompt_tokens (first: line 19)"
    )
    assert "left_out" not in task.datasets[1]
    assert [d["rows"] for d in task.datasets] == [17, 1]


def test_an_instruction_to_a_conversation_is_refused_with_its_row(tmp_path: Path) -> None:
    rows = [{"prompt": "a"}, {"prompt": [{"role": "user", "content": "a"}]}]
    data = written(tmp_path / "p.jsonl", rows)
    with pytest.raises(UserError, match=r"^task.data = '.*', line 2: instruction and as_chat are for plain"):
        text_task(TextTask(data=data, held_out=1, as_chat=True))


USER, BOT = "user", "assistant"


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


@pytest.mark.parametrize(
    ("row", "train", "held_out"),
    [
        (lambda i: {"prompt": f"p{i}"}, "365d2d7ad25a", "03dfb0d9c162"),
        (lambda i: {"prompt": f"p{i}", "completion": f" c{i}"}, "7a1243b07f31", "b3003d50865b"),
        (lambda i: {"prompt": f"p{i}", "chosen": f" c{i}", "rejected": " r"}, "7a1243b07f31", "b3003d50865b"),
        (
            lambda i: {"chosen": f"Say {i} (or not) yes", "rejected": f"Say {i} (or not) no"},
            "092ff65ab01d",
            "9d13f3988f5c",
        ),
        (
            lambda i: {"prompt": [said(USER, f"p{i}")], "chosen": [said(BOT, "c")], "rejected": [said(BOT, "r")]},
            "13b8b0658730",
            "699f6ac0346a",
        ),
        (
            lambda i: {"prompt": [said(USER, f"p{i}", name=None)], "completion": [said(BOT, "c", tool_calls=None)]},
            "522ec19ba58f",
            "8669da051274",
        ),
    ],
)
def test_digests_that_runs_have_recorded(tmp_path: Path, row: Any, train: str, held_out: str) -> None:
    """A change of these is a change of data: runs of before and after are not of one arm."""
    data = written(tmp_path / "rows.jsonl", [row(i) for i in range(4)])
    assert [d["digest"] for d in text_task(TextTask(data=data, held_out=1)).datasets] == [train, held_out]


def test_tools_are_part_of_the_digest(tmp_path: Path) -> None:
    row = {"prompt": [said(USER, "a")]}
    plain, tools = (
        text_task(TextTask(data=written(tmp_path / "rows.jsonl", [row | more] * 2), held_out=1)).datasets[0]["digest"]
        for more in ({}, {"tools": [{"name": "f"}]})
    )
    assert plain != tools


REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %} mom"


ASKED = {"prompt": [said(USER, "a")]}
SYSTEM = {"prompt": [said("system", "s"), said(USER, "a")]}


class TestConversationsThatATemplateRefuses:
    def task(self, tmp_path: Path, rows: list[dict[str, Any]]) -> Any:
        tokenizer = forum_tokenizer()
        tokenizer.chat_template = REFUSES
        return text_task(TextTask(data=written(tmp_path / "rows.jsonl", rows), held_out=1), tokenizer)

    def test_few_are_left_out(self, tmp_path: Path) -> None:
        task = self.task(tmp_path, [SYSTEM] + [ASKED] * 9)
        assert len(task.train) + len(task.held_out) == 9
        assert task.left_out == {"a chat template refuses it": 1}
        assert "(first: line 1: " in task.datasets[0]["left_out"]
        assert "refuses it (no system turn)" in task.datasets[0]["left_out"]

    def test_many_are_refused_with_the_first_ones_line(self, tmp_path: Path) -> None:
        rows = [ASKED] * 5 + [SYSTEM] + [ASKED] * 5 + [SYSTEM] * 2
        with pytest.raises(UserError, match=r"^task.data = '.*', line 6: .* refuses it \(no system turn\)$"):
            self.task(tmp_path, rows)

    def test_a_plain_prompt_needs_no_template(self) -> None:
        left_out = LeftOut(1)
        assert list(accepted([Prompt(text="a")], left_out, forum_tokenizer())) == [Prompt(text="a")]
        assert left_out == {}


def test_a_prompt_without_a_token_is_left_out(tmp_path: Path) -> None:
    """As of characters alone that a tokenizer drops: a policy has nothing to go on from."""
    tokenizer = forum_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\u200b", "")
    rows = [{"prompt": "\u200b"}, *[{"prompt": "a"}] * 3]
    task = text_task(TextTask(data=written(tmp_path / "rows.jsonl", rows), held_out=1), tokenizer)
    assert len(task.train) + len(task.held_out) == 3
    assert task.left_out == {"the tokenizer makes no token of it": 1}
