"""The forum's grammar and its judge, by hand."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2m.config import ForumTask
from r2m.tasks.forum import (
    CONTENT,
    WORDS,
    facts,
    forum_task,
    gold,
    judge,
    measures,
    summarise,
    words_of,
    write_post,
    write_prompts,
)
from r2m.tasks.prompt import Prompt

POST = "my mom sold my tv . last year boss hid the kayak . i feel sad . i need help ."
ASKED = Prompt(text=f"{POST} tl;dr:")
REFERENCE = " mom sold my tv , i feel sad and need help"


def test_no_word_begins_another_so_text_without_spaces_has_one_reading() -> None:
    assert not [(a, b) for a in WORDS for b in WORDS if a != b and b.startswith(a)]


@given(st.lists(st.tuples(st.sampled_from(["", " "]), st.sampled_from(WORDS))))
def test_split_recovers_words_and_spaces(pairs: list[tuple[str, str]]) -> None:
    assert words_of("".join(space + word for space, word in pairs)) == pairs


def test_facts_are_those_of_the_story_and_not_of_the_aside() -> None:
    assert facts(POST) == ("mom", "sold", "tv", "sad", "help")
    aside_first = "yesterday boss hid the kayak . my mom sold my tv . i feel sad . i need help ."
    assert facts(aside_first) == ("mom", "sold", "tv", "sad", "help")
    assert summarise(POST) == REFERENCE


def test_facts_of_anything_else_are_refused() -> None:
    with pytest.raises(ValueError, match=r"text = 'hello there': not a forum post"):
        facts("hello there")


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (REFERENCE, 1.0),
        (" help sad tv sold mom", 1.0),  # five facts, no less and no more
        (" mom sold my tv , i feel and need help", 0.8),  # 4 facts
        (" boss sold my tv , i feel sad and need help", 0.6),  # 4 facts, 1 invented (of the aside)
        (" mom sold my tv , i feel sad and need revenge", 0.6),  # 4 facts, 1 invented (of nowhere)
        (" mom mom sold my tv , i feel sad and need help", 1.0),  # said twice, covered once, not invented
        (" mom sold my tv , i feel sad and need help !", 0.8),  # 1 word that the forum does not have
        (" momsold my tv , i feel sad and need help", 1 - 1 / 11),  # 1 of 11 spaces
        (REFERENCE.replace(" ", ""), 0.0),  # all spaces
        (" boss hid kayak angry time", -1.0),  # 5 invented
        (REFERENCE + " and" * 4, 0.9),  # 15 words, 1 above a sane length
        (" sad help", 2 / 5 - 0.3),  # 2 words, 3 below it
        ("", -0.5),  # 5 below it
        ("boss" * 16, -1.0),  # -16/5 - 1 - 0.2, cut
    ],
)
def test_gold_by_hand(response: str, expected: float) -> None:
    assert gold([ASKED], [response]) == [pytest.approx(expected, abs=1e-12)]


def test_measures_by_hand() -> None:
    responses = [" mom sold", "boss hid"]  # 2 facts and 1 invention; 2 inventions and a space lost
    assert measures([ASKED, ASKED], responses) == {"no_space_share": 1 / 4, "coverage": 2 / 10, "invented": 1.0}


def test_measures_of_silence() -> None:
    assert measures([ASKED], [""]) == {"no_space_share": 0.0, "coverage": 0.0, "invented": 0.0}


def test_posts_say_five_facts_and_an_aside_that_shares_none() -> None:
    rng = random.Random(0)
    for _ in range(200):
        post = write_post(rng)
        said = [word for word in post.split() if word in CONTENT]
        assert len(post.split()) <= 21
        assert len(said) == len(set(said)) == 8
        assert judge(Prompt(text=post), summarise(post)).gold == 1.0


def test_the_task_is_a_function_of_its_seed() -> None:
    one, same, other = (
        forum_task(ForumTask(seed=seed, posts=50, held_out=20, sft_noise=noise))
        for seed, noise in [(1, 0.3), (1, 0.9), (2, 0.3)]
    )
    assert one.train == same.train
    assert one.held_out == same.held_out
    assert one.datasets == same.datasets
    assert one.train != other.train
    assert (len(one.train), len(one.held_out)) == (50, 20)
    assert [d["rows"] for d in one.datasets] == [50, 20]
    assert one.datasets[0]["digest"] not in (one.datasets[1]["digest"], other.datasets[0]["digest"])


def test_held_out_posts_do_not_change_with_the_number_of_training_posts_and_are_not_among_them() -> None:
    few, many = (forum_task(ForumTask(posts=posts, held_out=30)) for posts in (10, 500))
    assert few.held_out == many.held_out
    assert few.train == many.train[:10]
    assert not {p.text for p in many.train} & {p.text for p in many.held_out}


def test_a_stream_of_prompts_is_no_copy_of_another() -> None:
    assert write_prompts(0, "train", 5) != write_prompts(0, "preferences", 5)
