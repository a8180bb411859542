"""What is made of scores, by hand. Axes: N queries, K responses, M references."""

import math

import pytest
import torch

from r2m.core.reshaping import (
    adversarial_shift,
    ensemble_score,
    length_penalised,
    precision,
    preference_as_reward,
    uncertainty,
)


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


class TestUncertainty:
    """Training features (2, 0), (0, 1), (2, 0) and ridge 1: M = diag(1 + 8, 1 + 1) = diag(9, 2)."""

    SEEN_BD = torch.tensor([[2.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    E_NKD = torch.tensor([[[3.0, 0.0], [0.0, 2.0]], [[3.0, 4.0], [0.0, 0.0]]])

    @property
    def precision_DD(self) -> torch.Tensor:
        return precision(self.SEEN_BD.T @ self.SEEN_BD, 1.0)

    def test_precision_by_hand(self) -> None:
        torch.testing.assert_close(self.precision_DD, torch.diag(torch.tensor([1 / 9, 1 / 2])))

    def test_by_hand(self) -> None:
        """sqrt(9 / 9), sqrt(4 / 2); sqrt(9 / 9 + 16 / 2), 0."""
        got = uncertainty(self.E_NKD, self.precision_DD)
        torch.testing.assert_close(got, torch.tensor([[1.0, math.sqrt(2)], [3.0, 0.0]]))

    def test_the_adversary_by_hand(self) -> None:
        """g = (3, 4): gᵀ M⁻¹ g = 1 + 8, and M⁻¹ g = (1/3, 2); eᵀ of it are 1, 4, 9, 0, over 3."""
        got = adversarial_shift(self.E_NKD, torch.tensor([3.0, 4.0]), self.precision_DD)
        torch.testing.assert_close(got, torch.tensor([[1 / 3, 4 / 3], [3.0, 0.0]]))

    def test_the_adversary_is_the_worst_score_layer_within_the_bound(self) -> None:
        """Of ten thousand others on the ellipsoid (φ - φ̂)ᵀ M (φ - φ̂) = b² none is worse for the policy, b = 0.7."""
        torch.manual_seed(0)
        e_BD, ref_BD = torch.randn(40, 5).double() + 1, torch.randn(40, 5).double()
        M_DD = torch.eye(5).double() + ref_BD.T @ ref_BD
        g_D, b = e_BD.mean(0) - ref_BD.mean(0), 0.7
        random_SD = torch.randn(10_000, 5).double()
        shift_SD = b * random_SD / ((random_SD @ M_DD) * random_SD).sum(-1, keepdim=True).sqrt()
        P_DD = M_DD.inverse()
        gap = adversarial_shift(e_BD[None], g_D, P_DD).mean() - adversarial_shift(ref_BD[None], g_D, P_DD).mean()
        assert float(-b * gap) <= float((shift_SD @ g_D).min())
        assert float(-b * gap) == pytest.approx(-b * float((g_D @ P_DD @ g_D).sqrt()))

    def test_without_a_direction_nothing_is_taken_off(self) -> None:
        assert adversarial_shift(self.E_NKD, torch.zeros(2), self.precision_DD).tolist() == [[0, 0], [0, 0]]
