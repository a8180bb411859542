"""RRM's pairs by hand: which responses meet, who wins, and how often."""

from collections import Counter

import pytest

from r2m.errors import UserError
from r2m.stages.augmentation import mixed_pairs
from r2m.tasks.prompt import Prompt

A, B, C = (Prompt(text=text) for text in "abc")
THREE = [(A, "a+", "a-"), (B, "b+", "b-"), (C, "c+", "c-")]
MANY = [(Prompt(text=str(i // 2)), f"{i // 2} + {i}", f"{i // 2} - {i}") for i in range(40)]  # two of each prompt


def test_the_fourteen_pairs_of_a_prompt_by_hand() -> None:
    of_a = [(m.first, m.second, m.preference) for m in mixed_pairs(THREE, 1.0, 0) if m.prompt == A]
    wins = {(own, other) for own in ("a+", "a-") for other in ("b+", "b-", "c+", "c-")}
    ties = [{"b+", "b-"}, {"b+", "c+"}, {"b+", "c-"}, {"b-", "c+"}, {"b-", "c-"}, {"c+", "c-"}]
    assert {pair[:2] for pair in of_a if pair[2] == 1.0} == wins  # its own response is the first, and wins
    assert sorted(sorted({first, second}) for first, second, p in of_a if p == 0.5) == sorted(map(sorted, ties))
    assert len(of_a) == len(wins) + len(ties) == 14


def test_another_pair_of_the_same_prompt_is_no_other_prompts() -> None:
    mixed = mixed_pairs(MANY, 1.0, 0)
    assert len(mixed) == 14 * len(MANY)
    for prompt, first, second, preference in mixed:
        own = [text.split()[0] == prompt.text for text in (first, second)]
        assert own == [preference == 1.0, False]


def test_a_share_is_drawn_by_the_seed_from_wins_and_ties_alike() -> None:
    half, same, other = (mixed_pairs(MANY, 0.5, seed) for seed in (1, 1, 2))
    assert half == same != other
    assert len(half) == 7 * len(MANY)
    wins = sum(m.preference == 1.0 for m in half) / len(half)
    assert wins == pytest.approx(8 / 14, abs=0.06)
    assert mixed_pairs(MANY, 0.0, 1) == []


def test_responses_are_read_to_other_prompts_about_equally_often() -> None:
    apart = [(Prompt(text=str(i)), f"{i} +", f"{i} -") for i in range(20)]
    strangers = Counter(m.second for m in mixed_pairs(apart, 1.0, 0) if m.preference == 1.0)
    assert set(strangers.values()) == {4}  # of two others' prompts, against both of their own


def test_too_few_prompts() -> None:
    with pytest.raises(UserError, match="the training pairs have 2, at least 3 are needed"):
        mixed_pairs([*THREE[:2], (A, "again", "and again")], 0.5, 0)
