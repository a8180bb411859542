"""Estimators by numbers worked by hand, and their invariants. Axes: N queries, K responses, R response tokens."""

import math

import pytest
import torch
from torch import Tensor

from r2m.core.advantages import (
    ADVANTAGES,
    Batch,
    grpo,
    reinforce_pp,
    reinforce_pp_baseline,
    remax,
    reward_to_go,
    rloo,
)


def alone(x: Tensor) -> Tensor:
    """The sum over the one worker that there is."""
    return x


def random_rewards(N: int = 5, K: int = 7) -> Tensor:
    return torch.randn(N, K, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def random_mask(N: int = 5, K: int = 7, R: int = 9) -> Tensor:
    lengths_NK = torch.randint(1, R + 1, (N, K), generator=torch.Generator().manual_seed(1))
    return torch.arange(R) < lengths_NK[..., None]


class TestRLOO:
    def test_by_hand(self) -> None:
        rewards_NK = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, -3.0]])
        # 1 - (2 + 6) / 2, 2 - (1 + 6) / 2, 6 - (1 + 2) / 2; 0 - (0 - 3) / 2 twice, -3 - 0
        expected_NK = torch.tensor([[-3.0, -1.5, 4.5], [1.5, 1.5, -3.0]])
        torch.testing.assert_close(rloo(rewards_NK), expected_NK)

    def test_two_responses_are_the_difference(self) -> None:
        torch.testing.assert_close(rloo(torch.tensor([[5.0, 3.0]])), torch.tensor([[2.0, -2.0]]))

    def test_sums_to_zero_shifts_out_and_scales(self) -> None:
        rewards_NK = random_rewards()
        advantages_NK = rloo(rewards_NK)
        torch.testing.assert_close(advantages_NK.sum(-1), torch.zeros(5, dtype=torch.float64))
        torch.testing.assert_close(rloo(3 * rewards_NK - 10), 3 * advantages_NK)


class TestGRPO:
    def test_by_hand(self) -> None:
        """Mean 3, deviations -2, -1 and 3, variance (4 + 1 + 9) / 2 = 7; 1e-4 beside the root."""
        std = math.sqrt(7) + 1e-4
        expected_NK = torch.tensor([[-2 / std, -1 / std, 3 / std]])
        torch.testing.assert_close(grpo(torch.tensor([[1.0, 2.0, 6.0]])), expected_NK, rtol=1e-6, atol=0)

    def test_a_scale_drops_out_but_for_the_epsilon(self) -> None:
        rewards_NK = random_rewards()
        torch.testing.assert_close(grpo(100 * rewards_NK - 10), grpo(rewards_NK), rtol=1e-3, atol=0)
        torch.testing.assert_close(grpo(rewards_NK).std(-1), torch.ones(5).double(), rtol=1e-3, atol=0)
        torch.testing.assert_close(grpo(rewards_NK).sum(-1), torch.zeros(5).double())

    def test_a_vanishing_spread_is_not_blown_up(self) -> None:
        """Without an epsilon, rounding errors of equal scores would have advantages of 1."""
        assert grpo(torch.tensor([[1.0, 1.0 + 1e-6]], dtype=torch.float64)).abs().max() < 0.01


@pytest.mark.parametrize("estimator", [rloo, grpo])
class TestGroups:
    @pytest.mark.parametrize("value", [0.1, -7.3, 1e4 + 1 / 3])
    @pytest.mark.parametrize("K", [2, 3, 7])
    def test_equal_rewards_have_advantage_exactly_zero(self, estimator, value: float, K: int) -> None:
        assert estimator(torch.full((1, K), value)).tolist() == [[0.0] * K]

    def test_nan_stays_in_its_group(self, estimator) -> None:
        row = [1.0, 2.0, 6.0]
        advantages_NK = estimator(torch.tensor([[1.0, float("nan"), 2.0], row]))
        assert advantages_NK[0].isnan().all()
        torch.testing.assert_close(advantages_NK[1:], estimator(torch.tensor([row])))

    def test_a_group_of_one_is_refused(self, estimator) -> None:
        with pytest.raises(ValueError, match=r"K is 1.*K >= 2"):
            estimator(torch.zeros(4, 1))


class TestReMax:
    def test_by_hand(self) -> None:
        rewards_NK1 = torch.tensor([[1.0, 2.0], [0.0, 4.0]])[..., None]
        expected_NK1 = torch.tensor([[-1.0, 0.0], [-1.0, 3.0]])[..., None]
        torch.testing.assert_close(remax(rewards_NK1, torch.tensor([2.0, 1.0])), expected_NK1)

    def test_each_query_has_its_own_baseline_at_every_token(self) -> None:
        to_go_NKR = torch.arange(12.0).view(2, 2, 3)
        expected_NKR = torch.stack([to_go_NKR[0] - 5, to_go_NKR[1] + 7])
        torch.testing.assert_close(remax(to_go_NKR, torch.tensor([5.0, -7.0])), expected_NKR)


class TestRewardToGo:
    def test_by_hand(self) -> None:
        """A score of 5 and KLs of 1, 2 and 3 at β = 1/2: 6, then 5, then 3 of KL are still to come."""
        returns_NKR = reward_to_go(torch.tensor([[5.0]]), torch.tensor([[[1.0, 2.0, 3.0]]]), 0.5)
        torch.testing.assert_close(returns_NKR, torch.tensor([[[2.0, 2.5, 3.5]]]))


class TestReinforcePP:
    def test_by_hand(self) -> None:
        """Returns 1, 2 and 6 at the three tokens: mean 3, variance (4 + 1 + 9) / 2 = 7. What is at padding is NaN."""
        to_go_NKR = torch.tensor([[[1.0, 2.0], [6.0, float("nan")]]])
        mask_NKR = torch.tensor([[[True, True], [True, False]]])
        expected = torch.tensor([-2.0, -1.0, 3.0]) / math.sqrt(7)
        torch.testing.assert_close(reinforce_pp(to_go_NKR, mask_NKR, alone)[mask_NKR], expected)

    def test_a_longer_response_counts_more(self) -> None:
        """Rewards 1 and 4 of 2 tokens and 1: the tokens have 1, 1, 4, mean 2, variance (1 + 1 + 4) / 2 = 3."""
        mask_NKR = torch.tensor([[[True, True], [True, False]]])
        expected_NK1 = torch.tensor([[[-1.0], [2.0]]]) / math.sqrt(3)
        torch.testing.assert_close(reinforce_pp(torch.tensor([[[1.0], [4.0]]]), mask_NKR, alone), expected_NK1)

    def test_one_value_a_response_is_that_value_at_each_of_its_tokens(self) -> None:
        rewards_NK1, mask_NKR = random_rewards()[..., None], random_mask()
        wide_NKR = reinforce_pp(rewards_NK1.expand(-1, -1, 9), mask_NKR, alone)
        torch.testing.assert_close(
            reinforce_pp(rewards_NK1, mask_NKR, alone).expand(-1, -1, 9)[mask_NKR], wide_NKR[mask_NKR]
        )

    def test_shift_and_scale_drop_out(self) -> None:
        rewards_NK1, mask_NKR = random_rewards()[..., None], random_mask()
        torch.testing.assert_close(
            reinforce_pp(3 * rewards_NK1 - 10, mask_NKR, alone), reinforce_pp(rewards_NK1, mask_NKR, alone)
        )

    @pytest.mark.parametrize("value", [0.0, -7.3, 1e4 + 1 / 3])
    def test_equal_returns_have_no_advantage(self, value: float) -> None:
        mask_NKR = random_mask()
        assert reinforce_pp(torch.full((5, 7, 1), value), mask_NKR, alone).abs().max() < 1e-4

    def test_a_single_token_has_no_advantage(self) -> None:
        one = torch.ones(1, 1, 1, dtype=torch.bool)
        assert reinforce_pp(torch.tensor([[[3.0]]]), one, alone).tolist() == [[[0.0]]]


class TestReinforcePPBaseline:
    def test_by_hand(self) -> None:
        """Minus their means: -1, 1 and -5, 5, one token each: mean 0, variance (1 + 1 + 25 + 25) / 3."""
        mask_NKR = torch.ones(2, 2, 1, dtype=torch.bool)
        expected_NK = torch.tensor([[-1.0, 1.0], [-5.0, 5.0]]) / math.sqrt(52 / 3)
        rewards_NK = torch.tensor([[1.0, 3.0], [0.0, 10.0]])
        torch.testing.assert_close(reinforce_pp_baseline(rewards_NK, mask_NKR, alone), expected_NK)

    def test_a_querys_difficulty_drops_out_and_the_rounds_scale_too(self) -> None:
        rewards_NK, mask_NKR = random_rewards(), random_mask()
        shifted_NK = 3 * rewards_NK + torch.arange(5.0)[:, None]
        torch.testing.assert_close(
            reinforce_pp_baseline(shifted_NK, mask_NKR, alone), reinforce_pp_baseline(rewards_NK, mask_NKR, alone)
        )  # fmt: skip

    def test_a_group_of_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"K is 1.*K >= 2"):
            reinforce_pp_baseline(torch.zeros(4, 1), torch.ones(4, 1, 2, dtype=torch.bool), alone)


def test_the_dict_gives_each_what_it_takes() -> None:
    rewards_NK, mask_NKR = random_rewards(), random_mask()
    to_go_NKT = rewards_NK[..., None] - random_mask().double()
    greedy_N = torch.arange(5.0).double()
    batch = Batch(rewards_NK, to_go_NKT, mask_NKR, greedy_N, alone)
    expected = {
        "rloo": rloo(rewards_NK)[..., None],
        "grpo": grpo(rewards_NK)[..., None],
        "remax": remax(to_go_NKT, greedy_N),
        "reinforce_pp": reinforce_pp(to_go_NKT, mask_NKR, alone),
        "reinforce_pp_baseline": reinforce_pp_baseline(rewards_NK, mask_NKR, alone)[..., None],
    }
    assert ADVANTAGES.keys() == expected.keys()
    for name, advantages_NKT in expected.items():
        assert torch.equal(ADVANTAGES[name].advantages(batch), advantages_NKT), name
