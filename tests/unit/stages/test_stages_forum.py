"""The forum's noise and its preference data: what each dial does, counted."""

import random

import pytest
import torch

from r2m.config import ForumTask
from r2m.stages.forum import corrupt, label_pairs, lose_spaces, new_policy, respond, two_pairs
from r2m.tasks.forum import WORDS, forum_tokenizer, gold, summarise, words_of, write_prompts
from r2m.tasks.prompt import Prompt

PROMPTS = write_prompts(0, "preferences", 400)
GOOD = [str(prompt.reference) for prompt in PROMPTS]
BAD = [" boss", " my tv", " i need", " grandpa"] * 100
WRITTEN = list(zip(PROMPTS, BAD, GOOD, strict=True))


def task(**dials: float) -> ForumTask:
    return ForumTask(**({"label_noise": 0.0, "artefact": 0.0, "space_pairs": 0.0} | dials))


def words(text: str) -> list[str]:
    return [word for _, word in words_of(text)]


def spaceless(text: str) -> int:
    return sum(not space for space, _ in words_of(text))


def test_a_reference_without_noise_is_clean() -> None:
    assert [corrupt(text, 0.0, random.Random(0)) for text in GOOD] == GOOD


def test_noise_comes_in_its_three_kinds_word_by_word() -> None:
    rng = random.Random(0)
    total = 11 * len(GOOD)
    noisy = [corrupt(text, 0.3, rng) for text in GOOD]
    left_out = total - sum(len(words_of(text)) for text in noisy)
    assert left_out / total == pytest.approx(0.3 * 0.4, abs=0.02)
    assert sum(map(spaceless, noisy)) / total == pytest.approx(0.3 * 0.1, abs=0.01)
    same_length = [(a, words(b)) for a, b in zip(map(words, GOOD), noisy, strict=True) if len(a) == len(words(b))]
    replaced = sum(x != y for a, b in same_length for x, y in zip(a, b, strict=True))
    kept = 1 - 0.3 * 0.4  # given that it was not left out
    expected = 0.3 * 0.5 * (1 - 1 / len(WORDS)) / kept
    assert replaced / (11 * len(same_length)) == pytest.approx(expected, abs=0.03)


def test_lost_spaces_change_no_word() -> None:
    rng = random.Random(0)
    lost = [lose_spaces(text, rng) for text in GOOD]
    assert list(map(words, lost)) == list(map(words, GOOD))
    shares = sorted(spaceless(text) / 11 for text in lost)
    assert shares[20] < 0.15  # anything from few
    assert shares[200] == pytest.approx(0.5, abs=0.1)
    assert shares[380] > 0.85  # to all


def test_without_dials_gold_decides() -> None:
    pairs = label_pairs(WRITTEN, task(), random.Random(0))
    assert pairs == list(zip(PROMPTS, GOOD, BAD, strict=True))


def test_ties_are_left_out() -> None:
    assert label_pairs([(PROMPTS[0], " boss", " boss")], task(), random.Random(0)) == []


def test_label_noise_flips_its_share() -> None:
    pairs = label_pairs(WRITTEN, task(label_noise=0.2), random.Random(0))
    flipped = sum(chosen == bad for (_, chosen, _), bad in zip(pairs, BAD, strict=True))
    assert flipped / len(pairs) == pytest.approx(0.2, abs=0.06)  # 3 standard errors
    flipped_all = label_pairs(WRITTEN, task(label_noise=1.0), random.Random(0))
    assert flipped_all == WRITTEN


def test_the_artefact_is_in_the_preferred_answer_of_its_share_and_leaves_the_verdict() -> None:
    pairs = label_pairs(WRITTEN, task(artefact=0.25), random.Random(0))
    assert [words(chosen) for _, chosen, _ in pairs] == list(map(words, GOOD))
    assert [rejected for *_, rejected in pairs] == BAD
    touched = sum(spaceless(chosen) > 0 for _, chosen, _ in pairs)
    assert 80 <= touched <= 100  # 100 are drawn; a few of them lose no space


def test_space_pairs_are_judged_with_their_spaces_lost() -> None:
    close = [(prompt, text, text) for prompt, text in zip(PROMPTS, GOOD, strict=True)]  # differ in spaces alone
    pairs = label_pairs(close, task(space_pairs=0.5), random.Random(0))
    assert 160 <= len(pairs) <= 200  # 200 are drawn; the others are ties
    for prompt, chosen, rejected in pairs:
        assert spaceless(chosen) == 0 < spaceless(rejected)
        assert gold([prompt], [chosen]) > gold([prompt], [rejected])


def test_both_dials_draw_different_pairs() -> None:
    pairs = label_pairs(WRITTEN, task(artefact=0.5, space_pairs=0.5), random.Random(0))
    in_both = sum(spaceless(chosen) > 0 and spaceless(rejected) > 0 for _, chosen, rejected in pairs)
    assert in_both == 0


def test_two_pairs_of_a_group() -> None:
    prompt = Prompt(text="my mom sold my tv . i feel sad . i need help . yesterday dad lost the boat . tl;dr:")
    best = summarise(str(prompt.text))
    bad, fair, good = " dad lost the boat", " sad", " mom sold my tv"  # -0.7, -0.2, 0.5
    assert two_pairs(prompt, [good, best, bad, fair]) == [(prompt, bad, best), (prompt, fair, good)]


def test_responses_are_the_policys_own_and_a_function_of_the_seed() -> None:
    tokenizer = forum_tokenizer()
    torch.manual_seed(0)
    policy = new_policy(tokenizer).eval()
    one, same, other = (respond(policy, tokenizer, PROMPTS[:3], 2, 1.0, seed) for seed in (1, 1, 2))
    assert one == same != other
    assert [len(group) for group in one] == [2, 2, 2]
    assert all(len(words_of(text)) <= 16 for group in one for text in group)


def test_the_policy_has_about_a_million_parameters() -> None:
    assert 0.8e6 < new_policy(forum_tokenizer()).num_parameters() < 1.2e6
