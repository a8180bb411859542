"""Signals by numbers that were worked by hand. Axes: as in r2m.alarm.signals."""

import math
import random

import pytest
import torch

from r2m.alarm.signals import HiddenDistance, jensen_shannon, text_drift
from r2m.core.trajectories import Trajectories
from r2m.tasks.encoding import encode
from r2m.tasks.forum import forum_tokenizer, write_prompts
from r2m.workers import Workers


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class TestDivergence:
    def test_by_hand(self) -> None:
        """(1/2, 1/2, 0) and (0, 1/2, 1/2): the middle is (1/4, 1/2, 1/4), each half is 1/2 ln 2 from it. Of two
        without a token in common it is ln 2; counts are made shares first."""
        p = torch.tensor([[1.0, 1.0, 0.0], [3.0, 0.0, 0.0], [2.0, 4.0, 2.0]])
        q = torch.tensor([[0.0, 5.0, 5.0], [0.0, 1.0, 1.0], [1.0, 2.0, 1.0]])
        assert jensen_shannon(p, q).tolist() == pytest.approx([math.log(2) / 2, math.log(2), 0])


class TestTextDrift:
    def test_by_hand(self) -> None:
        """Two prompts: the policy writes 1 where the reference writes 2. Unexchanged and with both exchanged the sets
        have nothing in common (ln 2), with one exchanged they are the same (0): so z is (ln 2 - m ln 2) / s, with m
        the share of the first kind among the exchanges drawn, and s their standard deviation."""
        z = text_drift([[1], [1]], [[2], [2]], seeded())
        signs_NS = torch.randint(2, (2, 201), generator=seeded())[:, 1:]
        apart_S = (signs_NS[0] == signs_NS[1]).double()
        assert z == pytest.approx(float((1 - apart_S.mean()) / apart_S.std()))
        assert 0.8 < z < 1.2

    def test_without_any_difference_it_is_0(self) -> None:
        same = [[1, 2, 3], [4], [2, 2]]
        assert text_drift(same, same, seeded()) == 0
        assert text_drift(same, [[3, 1, 2], [4], [2, 2]], seeded()) == 0  # in another order

    def test_one_prompt_alone_cannot_say(self) -> None:
        assert text_drift([[1, 2, 3]], [[7, 8, 9, 9]], seeded()) == 0
        assert text_drift([[1, 2, 3], [5]], [[7, 8, 9, 9], [5]], seeded()) == 0

    def test_draws_from_one_distribution_are_about_0(self) -> None:
        """Though prompts differ, and every token is rare: a hundred sets have mean 0 and deviation 1."""
        rng, found = random.Random(0), []
        for _ in range(100):
            topics = [rng.randrange(40) for _ in range(32)]
            ours, theirs = ([[10 * topic + rng.randrange(10) for _ in range(8)] for topic in topics] for _ in "ab")
            found.append(text_drift(ours, theirs, seeded()))
        assert abs(sum(found) / 100) < 0.3
        assert 0.7 < torch.tensor(found).std() < 1.4

    def test_a_lost_space_shows_though_nothing_names_it(self) -> None:
        """Summaries of 64 posts, and the same words with one space in ten left out, and with all."""
        tokenizer, rng = forum_tokenizer(), random.Random(0)
        texts = [str(prompt.reference) for prompt in write_prompts(0, "held-out", 64)]

        def drift(lost: float) -> float:
            changed = ["".join("" if c == " " and rng.random() < lost else c for c in text) for text in texts]
            return text_drift(*([encode(tokenizer, t) for t in part] for part in (changed, texts)), seeded())

        assert drift(0) == 0
        assert 10 < drift(0.1) < drift(1)

    def test_the_global_generator_is_left_alone(self) -> None:
        before = torch.get_rng_state()
        text_drift([[1], [2]], [[3], [4]], seeded())
        assert torch.equal(torch.get_rng_state(), before)


class TestHiddenDistance:
    def block(self, mask: list[list[list[int]]]) -> Trajectories:
        mask_NKR = torch.tensor(mask, dtype=torch.bool)
        prompt = torch.ones(len(mask), 2, dtype=torch.long)
        ids, ended = mask_NKR.long(), torch.ones(mask_NKR.shape[:2], dtype=torch.bool)
        return Trajectories(prompt, prompt.bool(), ids, mask_NKR, mask_NKR.float(), ended)

    def test_by_hand_over_two_blocks_of_unequal_lengths(self) -> None:
        """The policy's states: (1, 0) at the prompt's last token and at the first of a response of two tokens, and
        in the second block (0, 1) at the prompt alone. Their sum is (2, 1), the reference's (0, 3). What stands at
        padding and at a prompt's other tokens has no part in it."""
        nothing = [math.nan, math.nan]
        distance = HiddenDistance()
        first = torch.tensor([[nothing, [1.0, 0.0]]]), torch.tensor([[[[1.0, 0.0], nothing]]])
        of_reference = torch.tensor([[nothing, [0.0, 1.0]]]), torch.tensor([[[[0.0, 1.0], nothing]]])
        distance.add(self.block([[[1, 1, 0]]]), first, of_reference)
        one = torch.tensor([[nothing, [0.0, 1.0]]]), torch.zeros(1, 1, 0, 2)
        distance.add(self.block([[[1]]]), one, one)
        assert distance.value(Workers()) == pytest.approx(1 - 1 / math.sqrt(5))

    def test_each_of_a_prompts_responses_is_predicted_from_it(self) -> None:
        """Three responses of one token: the prompt's (1, 0) counts three times against one (0, 1) of another's."""
        distance = HiddenDistance()
        ours = torch.tensor([[[1.0, 0.0]]]), torch.zeros(1, 3, 0, 2)
        distance.add(self.block([[[1], [1], [1]]]), ours, ours)
        other = torch.tensor([[[0.0, 1.0]]]), torch.zeros(1, 1, 0, 2)
        distance.add(self.block([[[1]]]), other, (-other[0], other[1]))
        assert distance.value(Workers()) == pytest.approx(1 - (9 - 1) / 10)

    def test_the_same_states_are_at_0(self) -> None:
        distance = HiddenDistance()
        same = torch.randn(1, 2, 5, generator=seeded()), torch.randn(1, 1, 1, 5, generator=seeded())
        distance.add(self.block([[[1, 1]]]), same, same)
        assert distance.value(Workers()) == pytest.approx(0, abs=1e-12)
