"""Words with and without their space, there and back."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from r2m.models.loading import load_tokenizer
from r2m.policy.queries import same_tokens
from r2m.tasks.encoding import decode
from r2m.tasks.forum import WORDS, forum_tokenizer, write_prompts

TOKENIZER = forum_tokenizer()


@given(st.lists(st.tuples(st.sampled_from(["", " "]), st.sampled_from(WORDS))))
def test_text_comes_back_as_it_was(pairs: list[tuple[str, str]]) -> None:
    text = "".join(space + word for space, word in pairs)
    ids = TOKENIZER(text)["input_ids"]
    assert len(ids) == len(pairs)
    assert decode(TOKENIZER, ids) == text


@pytest.mark.parametrize("word", WORDS)
def test_a_word_with_and_without_its_space_are_two_tokens(word: str) -> None:
    (bare,), (spaced,) = TOKENIZER(word)["input_ids"], TOKENIZER(f" {word}")["input_ids"]
    assert bare != spaced
    assert TOKENIZER.unk_token_id not in (bare, spaced)


def test_padding_is_not_the_end_token_and_neither_is_text() -> None:
    assert TOKENIZER.pad_token_id != TOKENIZER.eos_token_id
    (mom,) = TOKENIZER(" mom")["input_ids"]
    assert decode(TOKENIZER, [mom, TOKENIZER.eos_token_id, TOKENIZER.pad_token_id]) == " mom"


def test_other_words_are_unknown() -> None:
    assert TOKENIZER.unk_token_id in TOKENIZER(" mom sold my yacht")["input_ids"]


def test_posts_are_short_and_in_the_vocabulary() -> None:
    for prompt in write_prompts(0, "train", 50):
        ids = TOKENIZER(prompt.text)["input_ids"]
        assert len(ids) <= 24
        assert TOKENIZER.unk_token_id not in ids


def test_it_reloads_as_it_was_saved(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    reloaded = load_tokenizer(str(tmp_path))
    assert isinstance(reloaded, PreTrainedTokenizerFast)
    assert same_tokens(TOKENIZER, reloaded)
    text = " momsold my tv ,i feel sad"
    assert reloaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert decode(reloaded, reloaded(text)["input_ids"]) == text
