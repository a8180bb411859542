"""What is made of scores, by hand. Axes: N queries, K responses, M references."""

import math

import pytest
import torch

from r2m.core.reshaping import ensemble_score, length_penalised, preference_as_reward


class TestPreferenceAsReward:
    def test_by_hand(self) -> None:
        """Against references of 0 and log 3: σ(log 3) = 3/4 and σ(0) = 1/2; σ(0) = 1/2 and σ(-log 3) = 1/4. Against
        two of 1: σ(0), and σ(log 9) = 9/10."""
        log3 = math.log(3)
        scores_NK = torch.tensor([[log3, 0.0], [1.0, 1.0 + 2 * log3]])
        got_NK = preference_as_reward(scores_NK, torch.tensor([[0.0, log3], [1.0, 1.0]]))
        torch.testing.assert_close(got_NK, torch.tensor([[(3 / 4 + 1 / 2) / 2, (1 / 2 + 1 / 4) / 2], [0.5, 0.9]]))

    def test_it_is_bounded_and_keeps_the_order_of_a_group(self) -> None:
        torch.manual_seed(0)
        scores_NK = 3 * torch.randn(50, 6)
        got_NK = preference_as_reward(scores_NK, torch.randn(50, 3))
        assert torch.equal(got_NK.argsort(-1), scores_NK.argsort(-1))
        assert 0 < got_NK.min() < got_NK.max() < 1
        far = preference_as_reward(torch.tensor([[-1e4, 1e4]]), torch.zeros(1, 1))
        assert far.tolist() == [[0.0, 1.0]]

    def test_a_constant_on_both_sides_does_not_matter(self) -> None:
        scores_NK, references_NM = torch.randn(4, 3).double(), torch.randn(4, 2).double()
        shifted = preference_as_reward(scores_NK + 7, references_NM + 7)
        torch.testing.assert_close(shifted, preference_as_reward(scores_NK, references_NM))


@pytest.mark.parametrize(("free", "expected"), [(0, [0.7, 0.4, -1.0]), (3, [1.0, 0.7, -0.7]), (99, [1.0, 1.0, 0.0])])
def test_length_penalised_by_hand(free: int, expected: list[float]) -> None:
    """λ = 0.1, responses of 3, 6 and 10 tokens."""
    got = length_penalised(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[3, 6, 10]]), 0.1, free)
    torch.testing.assert_close(got, torch.tensor([expected]))


class TestEnsembleScore:
    """Three members' scores of two responses: 1, 2, 6 (mean 3, variance (4 + 1 + 9) / 3) and three times 5."""

    MEMBERS_MNK = torch.tensor([[[1.0, 5.0]], [[2.0, 5.0]], [[6.0, 5.0]]])

    @pytest.mark.parametrize(
        ("how", "expected"), [("mean", [[3.0, 5.0]]), ("min", [[1.0, 5.0]]), ("uwo", [[3 - 0.5 * 14 / 3, 5.0]])]
    )
    def test_by_hand(self, how: str, expected: list[list[float]]) -> None:
        torch.testing.assert_close(ensemble_score(self.MEMBERS_MNK, how, 0.5), torch.tensor(expected))

    def test_uwo_without_weight_is_the_mean(self) -> None:
        assert torch.equal(ensemble_score(self.MEMBERS_MNK, "uwo", 0.0), ensemble_score(self.MEMBERS_MNK, "mean"))

    def test_another(self) -> None:
        with pytest.raises(ValueError, match="how is 'max', allowed: mean, min, uwo"):
            ensemble_score(self.MEMBERS_MNK, "max")
