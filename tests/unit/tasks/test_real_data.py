"""Real files, as published: how many rows are read, and why the others are not.

They are read from ../shared/data beside the repository, or from the folder that R2M_SHARED_DATA names.
"""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from r2m.tasks.columns import comparable, completions, preference_pairs, prompts
from r2m.tasks.files import Rows, read_rows

SHARED = Path(os.environ.get("R2M_SHARED_DATA", Path(__file__).parents[3] / "../shared/data"))
DIFFER = "chosen and rejected differ before the last answer"
EQUAL, EMPTY = "chosen and rejected are equal", "chosen or rejected is empty"


def rows_of(name: str) -> Rows:
    path = SHARED / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return read_rows(str(path))


@pytest.mark.parametrize(
    ("name", "count", "left_out"),
    [
        ("hh_rlhf/helpful-base.test", 2354, {DIFFER: 9, EMPTY: 4, EQUAL: 2}),
        ("ultrafeedback_subset/train", 1000, {EQUAL: 4, EMPTY: 2}),
        ("ultrafeedback_subset/eval", 200, {EQUAL: 1}),
        ("llamafactory_demo/dpo_en_demo", 300, {}),
    ],
)
def test_preferences(name: str, count: int, left_out: dict[str, int]) -> None:
    rows = rows_of(name)
    pairs = comparable(preference_pairs(rows))
    assert (len(rows), len(pairs)) == (count, count - sum(left_out.values()))
    assert pairs.left_out == left_out


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("hh_rlhf/helpful-base.test", 2345),
        ("ultrafeedback_subset/train", 1000),
        ("llamafactory_demo/dpo_en_demo", 300),
        ("llamafactory_demo/alpaca_en_demo", 999),
        ("tldr/oai1b_judged", 1945),
    ],
)
def test_prompts(name: str, count: int) -> None:
    assert len(prompts(rows_of(name), "prompt")) == count


def test_supervised() -> None:
    assert len(completions(rows_of("llamafactory_demo/alpaca_en_demo"))) == 999


def test_transcripts_and_their_conversations_are_the_same_pairs() -> None:
    def turns(transcript: str) -> list[dict[str, Any]]:
        parts = re.split(r"\n\n(Human|Assistant):", transcript)[1:]
        roles = {"Human": "user", "Assistant": "assistant"}
        return [{"role": roles[a], "content": b.strip()} for a, b in zip(parts[::2], parts[1::2], strict=True)]

    rows = rows_of("hh_rlhf/helpful-base.test")
    plain = preference_pairs(rows)
    chats = preference_pairs([{key: turns(row[key]) for key in ("chosen", "rejected")} for row in rows])
    assert plain.left_out == chats.left_out
    for (a, *texts), (b, *contents) in zip(plain, chats, strict=True):
        assert tuple(turns(f"{a.text}")[:-1]) == b.messages
        assert [text.strip() for text in texts] == contents
    whole = {(row["chosen"], row["rejected"]) for row in rows}
    assert all((f"{p.text}{chosen}", f"{p.text}{rejected}") in whole for p, chosen, rejected in plain)
