"""Where a shared prompt ends: by hand, and for any texts by what must hold."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2m.tasks.messages import RowError
from r2m.tasks.shared_prompt import split_shared

HELLO = "\n\nHuman: Hi\n\nAssistant:"


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        ("2+2=", "4", "5"),
        ("2+2=", "41", "42"),  # not inside of a number
        ("pi=", "3.14", "3.15"),
        ("天空是", "蓝色的", "绿色的"),
        ("问题: 天空是什么颜色？它是", "蓝色", "绿色"),  # though there is a space, early on
        ("空は", "青い", "赤い"),
        ("สวัสดี", "ครับ", "ค่ะ"),
        ("天", "空", "空是"),  # either answer has something
        ("Q", "\tyes", "\tno"),
        ("Which one:", "\tyes", "\tno"),
        ("I like", " cats", " cars"),
        ("So", " it is", " it"),
        ("(a)", " (yes)", " (no)"),
        ("한국어는", " 좋다", " 나쁘다"),
        ("x", "👩\u200d👩\u200d👧", "👩\u200d👩\u200d👦"),  # not inside of a character of several
        ("=", "e\u0301", "e\u0300"),
        # Transcripts: "I" and "That's" are of the answers, however much these share.
        (HELLO, " I am well", " I am ill"),
        (HELLO, " I am well", " I am well, and you?"),
        (HELLO, " Yes", " Yes"),
        (f"{HELLO} Hello\n\nHuman: Why?\n\nAssistant:", " So", ""),
        ("Human: Hi\n\nAssistant:", " A b", " A c"),
        (HELLO, " the Human: said", " the Human: did"),
        (HELLO.replace("\n", "\r\n"), " I am well", " I am ill"),
    ],
)
def test_split(prompt: str, chosen: str, rejected: str) -> None:
    assert split_shared(prompt + chosen, prompt + rejected) == (prompt, chosen, rejected)


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        ("yes", "no", "must begin with a shared one"),
        (" yes", " no", "must begin with a shared one"),
        (" yes", "no", "must begin with a shared one"),
        ("cats", "cars", "must begin with a shared one"),
        ("cats", "cats are", "must begin with a shared one"),
        ("3.14", "3.15", "must begin with a shared one"),
        ("", "", "one text"),
        ("a b", "a b", "one text"),
        ("", "a", "must begin with a shared one"),
        (f"{HELLO} a", f"{HELLO} b\n\nHuman: c", "its last turn is not the assistant's"),
        (f"{HELLO} a", f"{HELLO} b\n\nHuman: c\n\nAssistant: d", "differ before the last answer"),
        (f"{HELLO} a", "\n\nHuman: Ho\n\nAssistant: a", "differ before the last answer"),
    ],
)
def test_no_prompt_to_be_had(chosen: str, rejected: str, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        split_shared(chosen, rejected)


TEXT = st.text(st.sampled_from("ab 天は\n\t=1.é\u0301👩\u200d"), max_size=12)
TURNS = st.lists(st.sampled_from(["\n\nHuman: a", "\n\nAssistant: b", "\n\nAssistant:", " c", "天"]), max_size=6)


@settings(deadline=None, max_examples=300)
@given(st.one_of(TEXT, TURNS.map("".join)), st.one_of(TEXT, TURNS.map("".join)), st.one_of(TEXT, TURNS.map("".join)))
def test_nothing_is_lost_and_the_split_is_the_same_both_ways(shared: str, one: str, two: str) -> None:
    chosen, rejected = shared + one, shared + two
    try:
        prompt, a, b = split_shared(chosen, rejected)
    except RowError as error:
        with pytest.raises(RowError, match=error.reason.replace("(", ".").replace(")", ".")):
            split_shared(rejected, chosen)
        return
    assert prompt.strip()
    assert (prompt + a, prompt + b) == (chosen, rejected)
    assert split_shared(rejected, chosen) == (prompt, b, a)
    transcript = prompt.endswith("\n\nAssistant:")
    assert transcript or (a and b)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.sampled_from(["Hi", "Why not?", "I see. I", "天空"]), min_size=1, max_size=4), st.text(), st.text()
)
def test_transcripts_are_split_after_the_last_header(turns: list[str], one: str, two: str) -> None:
    asked = "".join(f"\n\nHuman: {turn}\n\nAssistant: {turn}" for turn in turns) + "\n\nHuman: So?\n\nAssistant:"
    assert split_shared(asked + one, asked + two) == (asked, one, two)
