import math

import pytest
import torch
from torch import Tensor

from r2m.core.reward_loss import best_and_worst, bradley_terry, gre_bt, group_reward_entropy, preference_loss


def rewards(N: int, K: int, seed: int = 0) -> Tensor:
    return torch.randn(N, K, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradient_of_entropy(rewards_NK: Tensor) -> Tensor:
    rewards_NK = rewards_NK.clone().requires_grad_()
    group_reward_entropy(rewards_NK).sum().backward()
    assert rewards_NK.grad is not None
    return rewards_NK.grad


class TestBradleyTerry:
    def test_by_hand(self) -> None:
        chosen_N, rejected_N = torch.tensor([1.0, math.log(3), 0.0]), torch.tensor([1.0, 0.0, math.log(3)])
        # σ(0) = 1/2, σ(log 3) = 3/4, σ(-log 3) = 1/4
        expected_N = torch.tensor([math.log(2), math.log(4 / 3), math.log(4)])
        torch.testing.assert_close(bradley_terry(chosen_N, rejected_N), expected_N)

    def test_gradient_is_minus_the_probability_of_the_wrong_order(self) -> None:
        chosen_N = torch.tensor([math.log(3)], requires_grad=True)
        bradley_terry(chosen_N, torch.zeros(1)).backward()
        torch.testing.assert_close(chosen_N.grad, torch.tensor([-0.25]))

    def test_far_apart(self) -> None:
        chosen_N = torch.tensor([-1e4, 1e4], requires_grad=True)
        loss_N = bradley_terry(chosen_N, -chosen_N.detach())
        loss_N.sum().backward()
        torch.testing.assert_close(loss_N.detach(), torch.tensor([2e4, 0.0]))
        torch.testing.assert_close(chosen_N.grad, torch.tensor([-1.0, 0.0]))


class TestPreferenceLoss:
    def test_by_hand(self) -> None:
        first_N, second_N = torch.tensor([math.log(3), math.log(3), 5.0]), torch.tensor([0.0, 0.0, 5.0])
        loss_N = preference_loss(first_N, second_N, torch.tensor([1.0, 0.5, 0.5]))
        # σ(log 3) = 3/4: preferred, -log 3/4; a tie, the mean of -log 3/4 and -log 1/4; equal scores that tie, log 2
        tie = (math.log(4 / 3) + math.log(4)) / 2
        torch.testing.assert_close(loss_N, torch.tensor([math.log(4 / 3), tie, math.log(2)]))

    def test_its_gradient_is_the_chance_less_the_label(self) -> None:
        first_N = torch.tensor([math.log(3), math.log(3), 0.0], requires_grad=True)
        preference_loss(first_N, torch.zeros(3), torch.tensor([1.0, 0.5, 0.5])).sum().backward()
        torch.testing.assert_close(first_N.grad, torch.tensor([-0.25, 0.25, 0.0]))  # a tie pulls scores together

    def test_where_the_first_is_preferred_it_is_bradley_terry_bit_for_bit(self) -> None:
        scores_2N = rewards(2, 50).float()
        assert torch.equal(preference_loss(*scores_2N, torch.ones(50)), bradley_terry(*scores_2N))


class TestGroupRewardEntropy:
    def test_by_hand(self) -> None:
        # Mean 1 and population variance (1 + 1 + 4) / 3 = 2: the standardised rewards are (-1, -1, 2) / √2.
        weight = math.exp(3 / math.sqrt(2))
        p = [1 / (2 + weight), 1 / (2 + weight), weight / (2 + weight)]
        expected = -sum(x * math.log(x) for x in p)
        assert expected == pytest.approx(0.6252, abs=1e-4)
        value_N = group_reward_entropy(torch.tensor([[0.0, 0.0, 3.0]]))
        torch.testing.assert_close(value_N, torch.tensor([expected]))

    @pytest.mark.parametrize("K", [3, 4, 32])
    def test_affine_invariance(self, K: int) -> None:
        rewards_NK = rewards(6, K)
        torch.testing.assert_close(group_reward_entropy(0.01 * rewards_NK + 40), group_reward_entropy(rewards_NK))
        # It follows that no gradient moves the mean or widens the spread.
        gradient_NK = gradient_of_entropy(rewards_NK)
        zeros_N = torch.zeros(6, dtype=torch.float64)
        torch.testing.assert_close(gradient_NK.sum(-1), zeros_N)
        torch.testing.assert_close((gradient_NK * rewards_NK).sum(-1), zeros_N)

    def test_permutation_of_responses(self) -> None:
        rewards_NK = rewards(3, 5)
        permuted_NK = rewards_NK[:, [3, 0, 4, 1, 2]]
        torch.testing.assert_close(group_reward_entropy(permuted_NK), group_reward_entropy(rewards_NK))

    def test_two_responses_are_constant(self) -> None:
        # Standardised rewards are always 1 and -1: p = σ(±2).
        p = 1 / (1 + math.exp(-2))
        expected = -p * math.log(p) - (1 - p) * math.log(1 - p)
        rewards_NK = rewards(8, 2)
        torch.testing.assert_close(group_reward_entropy(rewards_NK), torch.full((8,), expected).double())
        torch.testing.assert_close(gradient_of_entropy(rewards_NK), torch.zeros(8, 2).double())

    @pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e4 + 1 / 3])
    @pytest.mark.parametrize("K", [1, 2, 3, 7])
    def test_zero_spread(self, value: float, K: int) -> None:
        rewards_NK = torch.full((2, K), value)
        torch.testing.assert_close(group_reward_entropy(rewards_NK), torch.full((2,), math.log(K)))
        assert gradient_of_entropy(rewards_NK).tolist() == [[0.0] * K] * 2

    @pytest.mark.parametrize("spread", [1e-3, 1e-5, 1e-7, 1e-12])
    def test_vanishing_spread_has_a_bounded_gradient(self, spread: float) -> None:
        gradient_NK = gradient_of_entropy(rewards(4, 5) * spread)
        assert gradient_NK.isfinite().all()
        assert gradient_NK.abs().max() < 1e6

    def test_a_spread_above_the_floor_changes_nothing(self) -> None:
        """The floor is a millionth of a reward unit: only what is closer together counts as equal."""
        rewards_NK = rewards(4, 5)
        torch.testing.assert_close(group_reward_entropy(rewards_NK * 1e-5), group_reward_entropy(rewards_NK))
        assert (group_reward_entropy(rewards_NK * 1e-8) > math.log(5) - 1e-3).all()

    def test_outlier_among_equals_is_its_minimum(self) -> None:
        K = 8
        lowest = group_reward_entropy(torch.tensor([[1.0] + [0.0] * (K - 1)], dtype=torch.float64))
        values_N = group_reward_entropy(rewards(500, K))
        assert (values_N > lowest).all()
        assert (values_N < math.log(K)).all()

    def test_gradcheck(self) -> None:
        assert torch.autograd.gradcheck(group_reward_entropy, (rewards(3, 4).requires_grad_(),))

    def test_nan_stays_in_its_group(self) -> None:
        values_N = group_reward_entropy(torch.tensor([[0.0, float("nan"), 1.0], [0.0, 0.0, 3.0]]))
        assert values_N.isnan().tolist() == [True, False]


class TestMix:
    def test_by_hand(self) -> None:
        bt_N, entropy_N = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 6.0])
        torch.testing.assert_close(gre_bt(bt_N, entropy_N, 0.25), torch.tensor([1.5, 3.0]))
        torch.testing.assert_close(gre_bt(bt_N, entropy_N, 0.0), bt_N)
        torch.testing.assert_close(gre_bt(bt_N, entropy_N, 1.0), entropy_N)

    @pytest.mark.parametrize("alpha", [-0.01, 1.01, math.nan])
    def test_refuses(self, alpha: float) -> None:
        with pytest.raises(ValueError, match=r"alpha is .*allowed: 0 to 1"):
            gre_bt(torch.zeros(1), torch.zeros(1), alpha)


class TestPreferencePair:
    def test_by_hand(self) -> None:
        best_N, worst_N = best_and_worst(torch.tensor([[1.0, 3.0, -2.0, 0.0], [5.0, 4.0, 6.0, 4.5]]))
        assert (best_N.tolist(), worst_N.tolist()) == ([1, 2], [2, 1])

    def test_ties_take_the_first(self) -> None:
        best_N, worst_N = best_and_worst(torch.tensor([[2.0, 1.0, 2.0, 1.0]]))
        assert (best_N.tolist(), worst_N.tolist()) == ([0], [1])

    def test_zero_spread_pairs_a_response_with_itself(self) -> None:
        rewards_NK = torch.full((1, 3), 0.7, requires_grad=True)
        best_N, worst_N = best_and_worst(rewards_NK)
        rows_N = torch.arange(1)
        loss_N = bradley_terry(rewards_NK[rows_N, best_N], rewards_NK[rows_N, worst_N])
        loss_N.sum().backward()
        torch.testing.assert_close(loss_N.detach(), torch.tensor([math.log(2)]))
        assert rewards_NK.grad is not None
        assert rewards_NK.grad.tolist() == [[0.0, 0.0, 0.0]]

    def test_nan_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"NaN in groups \[1\]"):
            best_and_worst(torch.tensor([[0.0, 1.0], [0.0, float("nan")]]))
