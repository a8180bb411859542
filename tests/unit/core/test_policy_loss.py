import math
from typing import Any

import pytest
import torch
from torch import Tensor

from r2m.core.policy_loss import (
    KL_ESTIMATORS,
    LOSS_AGGREGATIONS,
    TRL_RLOO,
    kl_estimate,
    kl_in_reward,
    policy_loss,
    sampler_weight,
)

# Two trajectories of 2 and 1 tokens, ratios (1.5, 0.5) and (0.5), advantages 2 and -1; nonsense at padding.
MASK_BT = torch.tensor([[True, True], [True, False]])
OLD_BT = torch.tensor([[-1.0, -2.0], [-3.0, float("nan")]])
LOG_PROBS_BT = OLD_BT + torch.tensor([[math.log(1.5), math.log(0.5)], [math.log(0.5), 1e9]])
ADVANTAGES_B = torch.tensor([2.0, -1.0])
OPTIONS: dict[str, Any] = {"beta": 0.0}


def random_batch(B: int = 6, T: int = 5) -> dict[str, Tensor]:
    """Off-policy, ragged, one row empty, NaN at padding; float64."""
    generator = torch.Generator().manual_seed(0)
    old_BT, noise_BT, ref_noise_BT = torch.randn(3, B, T, dtype=torch.float64, generator=generator)
    lengths_B = torch.tensor([5, 1, 0, 3, 4, 2])[:B]
    mask_BT = torch.arange(T) < lengths_B.unsqueeze(-1)
    padding_BT = torch.where(mask_BT, 0.0, torch.nan)
    return {
        "log_probs_NKR": old_BT + 0.3 * noise_BT + padding_BT,
        "old_log_probs_NKR": old_BT + padding_BT,
        "ref_log_probs_NKR": old_BT + 0.3 * ref_noise_BT,
        "advantages_NK": torch.randn(B, dtype=torch.float64, generator=generator),
        "mask_NKR": mask_BT,
    }


def loss_and_gradient(batch: dict[str, Tensor], **options: Any) -> tuple[Tensor, Tensor]:
    log_probs_BT = batch["log_probs_NKR"].clone().requires_grad_()
    loss = policy_loss(**{**batch, "log_probs_NKR": log_probs_BT}, **options).loss
    loss.backward()
    assert log_probs_BT.grad is not None
    return loss.detach(), log_probs_BT.grad


class TestKL:
    @pytest.mark.parametrize(
        ("estimator", "expected"), [("k1", math.log(2)), ("k2", math.log(2) ** 2 / 2), ("k3", math.log(2) - 0.5)]
    )
    def test_by_hand(self, estimator: str, expected: float) -> None:
        log_probs_BT = torch.tensor([[math.log(0.5), -1.0]])
        ref_BT = torch.tensor([[math.log(0.25), -1.0]])
        torch.testing.assert_close(kl_estimate(log_probs_BT, ref_BT, estimator), torch.tensor([[expected, 0.0]]))

    def test_against_the_exact_divergence(self) -> None:
        """Every token of a vocabulary, weighed by its probability, in place of a sample."""
        logits_V, ref_logits_V = torch.randn(2, 1, 7, generator=torch.Generator().manual_seed(0)).double()
        logits_V.requires_grad_()
        log_p, log_ref = logits_V.log_softmax(-1), ref_logits_V.log_softmax(-1)
        p = log_p.exp()
        divergence, reverse = (p * (log_p - log_ref)).sum(), (log_ref.exp() * (log_ref - log_p)).sum()

        def gradient(value: Tensor) -> Tensor:
            return torch.autograd.grad(value, logits_V, retain_graph=True)[0]

        expected = {name: (p.detach() * kl_estimate(log_p, log_ref, name)).sum() for name in KL_ESTIMATORS}
        torch.testing.assert_close(expected["k1"], divergence)
        torch.testing.assert_close(expected["k3"], divergence)
        torch.testing.assert_close(gradient(expected["k1"]), torch.zeros_like(logits_V))
        torch.testing.assert_close(gradient(expected["k2"]), gradient(divergence))
        torch.testing.assert_close(gradient(expected["k3"]), gradient(reverse))

    def test_in_reward(self) -> None:
        ref_BT = OLD_BT - torch.tensor([[1.0, 2.0], [4.0, 8.0]])
        rewards_B = kl_in_reward(torch.tensor([5.0, 6.0]), OLD_BT, ref_BT, MASK_BT, 0.1, "k1")
        torch.testing.assert_close(rewards_B, torch.tensor([5 - 0.3, 6 - 0.4]))

    def test_refuses(self) -> None:
        with pytest.raises(ValueError, match=r"estimator is 'k4', allowed: k1, k2, k3"):
            kl_estimate(OLD_BT, OLD_BT, "k4")


class TestSurrogate:
    # min(1.5 · 2, 1.2 · 2) = 2.4 (clipped), min(0.5 · 2, 0.8 · 2) = 1, min(-0.5, -0.8) = -0.8 (clipped)
    @pytest.mark.parametrize(
        ("loss_aggregation", "expected"),
        [
            ("token_mean", -2.6 / 3),
            ("sequence_mean_token_sum", -2.6 / 2),
            ("sequence_mean_token_mean", -(1.7 - 0.8) / 2),
        ],
    )
    def test_token_level_by_hand(self, loss_aggregation: str, expected: float) -> None:
        options = {**OPTIONS, "loss_aggregation": loss_aggregation}
        result = policy_loss(LOG_PROBS_BT, OLD_BT, None, ADVANTAGES_B, MASK_BT, **options)
        assert result.loss.item() == pytest.approx(expected)
        assert (result.clipped_terms.item(), result.terms.item()) == (2, 3)
        assert result.max_ratio_deviation.item() == pytest.approx(0.5)

    @pytest.mark.parametrize("loss_aggregation", LOSS_AGGREGATIONS)
    def test_sequence_level_by_hand(self, loss_aggregation: str) -> None:
        # Ratios 0.75 and 0.5: min(1.5, 0.8 · 2) = 1.5 and min(-0.5, -0.8) = -0.8 (clipped).
        options = {**OPTIONS, "ratio_level": "sequence", "loss_aggregation": loss_aggregation}
        result = policy_loss(LOG_PROBS_BT, OLD_BT, None, ADVANTAGES_B, MASK_BT, **options)
        assert result.loss.item() == pytest.approx(-(1.5 - 0.8) / 2)
        assert (result.clipped_terms.item(), result.terms.item()) == (1, 2)
        assert result.max_ratio_deviation.item() == pytest.approx(0.5)

    def test_an_advantage_for_each_token_by_hand(self) -> None:
        """min(1.5 · 2, 1.2 · 2) = 2.4 (clipped), min(0.5 · -4, 0.8 · -4) = -3.2 (clipped), 0.5 · 3 = 1.5."""
        advantages_BT = torch.tensor([[2.0, -4.0], [3.0, float("nan")]])
        result = policy_loss(LOG_PROBS_BT, OLD_BT, None, advantages_BT, MASK_BT, **OPTIONS)
        assert result.loss.item() == pytest.approx(-(2.4 - 3.2 + 1.5) / 2)
        assert result.clipped_terms.item() == 2

    @pytest.mark.parametrize("ratio_level", ["token", "sequence"])
    def test_one_advantage_in_a_column_is_one_a_trajectory(self, ratio_level: str) -> None:
        batch = random_batch()
        expected, gradient_BT = loss_and_gradient(batch, ratio_level=ratio_level, beta=0.0)
        batch["advantages_NK"] = batch["advantages_NK"].unsqueeze(-1)
        loss, column_gradient_BT = loss_and_gradient(batch, ratio_level=ratio_level, beta=0.0)
        assert torch.equal(loss, expected)
        assert torch.equal(column_gradient_BT, gradient_BT)

    def test_a_ratio_of_the_sequence_has_one_advantage(self) -> None:
        with pytest.raises(ValueError, match=r"ratio_level is 'sequence', allowed: one advantage a trajectory"):
            policy_loss(LOG_PROBS_BT, OLD_BT, None, OLD_BT, MASK_BT, ratio_level="sequence", **OPTIONS)

    def test_asymmetric_clip(self) -> None:
        result = policy_loss(
            LOG_PROBS_BT, OLD_BT, None, ADVANTAGES_B, MASK_BT, clip_low=0.6, clip_high=0.4, **OPTIONS
        )
        # 1.4 · 2 (clipped), 1, and -0.5, now inside the range
        assert result.loss.item() == pytest.approx(-(2.8 + 1 - 0.5) / 2)
        assert result.clipped_terms.item() == 1

    def test_clipped_terms_have_no_gradient(self) -> None:
        batch = {"log_probs_NKR": LOG_PROBS_BT, "old_log_probs_NKR": OLD_BT, "ref_log_probs_NKR": OLD_BT}
        batch |= {"advantages_NK": ADVANTAGES_B, "mask_NKR": MASK_BT}
        _, gradient_BT = loss_and_gradient(batch, **OPTIONS)
        # Only the term 0.5 · 2 moves: d(-ratio Â / 2) / d log π = -ratio Â / 2.
        torch.testing.assert_close(gradient_BT, torch.tensor([[0.0, -0.5], [0.0, 0.0]]))

    @pytest.mark.parametrize("ratio_level", ["token", "sequence"])
    def test_first_minibatch(self, ratio_level: str) -> None:
        """π = π_old: ratio 1, nothing clipped, and the gradient is REINFORCE's."""
        batch = random_batch()
        batch["log_probs_NKR"] = batch["old_log_probs_NKR"]
        result = policy_loss(**batch, ratio_level=ratio_level, beta=0.0)
        assert result.max_ratio_deviation.item() == 0
        assert result.clipped_terms.item() == 0
        _, gradient_BT = loss_and_gradient(batch, ratio_level=ratio_level, beta=0.0)
        expected_BT = torch.where(batch["mask_NKR"], -batch["advantages_NK"].unsqueeze(-1) / 5, 0.0)
        torch.testing.assert_close(gradient_BT, expected_BT)

    @pytest.mark.parametrize("ratio_level", ["token", "sequence"])
    def test_first_minibatch_of_balanced_groups_has_loss_zero(self, ratio_level: str) -> None:
        advantages_B, mask_BT = torch.tensor([-3.0, -1.5, 4.5]), torch.ones(3, 4, dtype=torch.bool)
        log_probs_BT = -torch.rand(3, 4)
        loss = policy_loss(
            log_probs_BT, log_probs_BT, None, advantages_B, mask_BT, ratio_level=ratio_level, beta=0.0
        ).loss
        assert loss.item() == pytest.approx(0, abs=1e-6)


class TestKLInLoss:
    @pytest.mark.parametrize("ratio_level", ["token", "sequence"])
    @pytest.mark.parametrize(
        ("loss_aggregation", "expected"),
        [("token_mean", 7.0 / 3), ("sequence_mean_token_sum", 7.0 / 2), ("sequence_mean_token_mean", (1.5 + 4) / 2)],
    )
    def test_by_hand(self, ratio_level: str, loss_aggregation: str, expected: float) -> None:
        ref_BT = OLD_BT - torch.tensor([[1.0, 2.0], [4.0, -1e9]])  # k1 = 1, 2, 4, and nonsense at padding
        options: dict[str, Any] = {
            "ratio_level": ratio_level,
            "loss_aggregation": loss_aggregation,
            "kl_estimator": "k1",
        }
        zeros_B = torch.zeros(2)
        result = policy_loss(OLD_BT, OLD_BT, ref_BT, zeros_B, MASK_BT, beta=0.1, **options)
        assert result.loss.item() == pytest.approx(0.1 * expected)

    def test_placement_in_reward_leaves_the_surrogate(self) -> None:
        batch = random_batch()
        in_reward = policy_loss(**batch, beta=0.1, kl_placement="reward").loss
        without = policy_loss(**{**batch, "ref_log_probs_NKR": None}, beta=0.0).loss
        torch.testing.assert_close(in_reward, without, rtol=0, atol=0)
        assert policy_loss(**batch, beta=0.1).loss > without


@pytest.mark.parametrize("ratio_level", ["token", "sequence"])
@pytest.mark.parametrize("loss_aggregation", LOSS_AGGREGATIONS)
class TestWholeMinibatch:
    def test_parts_sum_to_the_whole(self, ratio_level: str, loss_aggregation: str) -> None:
        batch = random_batch()
        options: dict[str, Any] = {"beta": 0.1, "ratio_level": ratio_level, "loss_aggregation": loss_aggregation}
        whole_loss, whole_gradient_BT = loss_and_gradient(batch, **options)
        totals = {"total_sequences": 5, "total_tokens": batch["mask_NKR"].sum()}  # row 2 is empty
        parts = [
            loss_and_gradient({name: tensor[rows] for name, tensor in batch.items()}, **options, **totals)
            for rows in (slice(0, 1), slice(1, 3), slice(3, 6))
        ]
        torch.testing.assert_close(torch.stack([loss for loss, _ in parts]).sum(), whole_loss)
        torch.testing.assert_close(torch.cat([gradient for _, gradient in parts]), whole_gradient_BT)

    def test_amount_of_padding_and_empty_rows_change_nothing(self, ratio_level: str, loss_aggregation: str) -> None:
        batch = random_batch()
        options: dict[str, Any] = {"beta": 0.1, "ratio_level": ratio_level, "loss_aggregation": loss_aggregation}
        loss, gradient_BT = loss_and_gradient(batch, **options)
        padded = {
            name: torch.nn.functional.pad(tensor, (0, 3, 0, 2) if tensor.ndim == 2 else (0, 2), value=False)
            for name, tensor in batch.items()
        }
        padded_loss, padded_gradient_BT = loss_and_gradient(padded, **options)
        torch.testing.assert_close(padded_loss, loss)
        torch.testing.assert_close(padded_gradient_BT[:6, :5], gradient_BT)
        assert padded_gradient_BT.count_nonzero() == gradient_BT.count_nonzero()

    def test_empty_rows_have_no_nan(self, ratio_level: str, loss_aggregation: str) -> None:
        batch = random_batch()
        batch["mask_NKR"] = torch.zeros_like(batch["mask_NKR"])
        loss, gradient_BT = loss_and_gradient(
            batch, beta=0.1, ratio_level=ratio_level, loss_aggregation=loss_aggregation
        )
        assert loss.item() == 0
        assert gradient_BT.tolist() == torch.zeros(6, 5).tolist()

    @pytest.mark.parametrize("kl_estimator", KL_ESTIMATORS)
    def test_gradcheck(self, ratio_level: str, loss_aggregation: str, kl_estimator: str) -> None:
        batch = random_batch()
        log_probs_BT = batch.pop("log_probs_NKR").nan_to_num(0.0).requires_grad_()

        def loss(log_probs_BT: Tensor) -> Tensor:
            return policy_loss(
                log_probs_BT,
                **batch,
                beta=0.1,
                ratio_level=ratio_level,
                loss_aggregation=loss_aggregation,
                kl_estimator=kl_estimator,
            ).loss

        assert torch.autograd.gradcheck(loss, (log_probs_BT,))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("ratio_level", "word", "ratio_level is 'word', allowed: token, sequence"),
        ("kl_placement", "both", "kl_placement is 'both', allowed: loss, reward"),
        ("kl_estimator", "k4", "kl_estimator is 'k4', allowed: k1, k2, k3"),
        ("loss_aggregation", "sum", "loss_aggregation is 'sum', allowed: token_mean, sequence_mean_token_sum,"),
        ("ref_log_probs_NKR", None, "ref_log_probs_NKR is None, allowed: a tensor where beta = 0.1"),
    ],
)
def test_refuses(option: str, value: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policy_loss(**{**random_batch(), "beta": 0.1, option: value})


def test_the_trl_convention_needs_no_reference_in_the_loss() -> None:
    result = policy_loss(LOG_PROBS_BT, OLD_BT, None, ADVANTAGES_B, MASK_BT, beta=0.05, **TRL_RLOO)
    assert result.loss.item() == pytest.approx(-(1.5 - 0.8) / 2)


class TestSamplerWeight:
    # The engine found the tokens 4 times, 2 times and 2 times less likely than the trainer: weights 4, 2 and 1/2.
    SAMPLED_BT = OLD_BT - torch.tensor([[math.log(4), math.log(2)], [-math.log(2), float("nan")]])

    @pytest.mark.parametrize(
        ("level", "cap", "expected"),
        [
            ("token", 3.0, [[3.0, 2.0], [0.5, 1.0]]),
            ("token", 9.0, [[4.0, 2.0], [0.5, 1.0]]),
            ("sequence", 3.0, [[3.0], [0.5]]),
            ("sequence", 9.0, [[8.0], [0.5]]),
        ],
    )
    def test_by_hand(self, level: str, cap: float, expected: list[list[float]]) -> None:
        """As TRL 1.16's token_truncate and sequence_truncate: exp of the difference, or of its sum, clamped."""
        weight_BT = sampler_weight(OLD_BT, self.SAMPLED_BT, MASK_BT, level, cap)
        torch.testing.assert_close(weight_BT, torch.tensor(expected))

    def test_where_both_agree_it_is_one(self) -> None:
        assert sampler_weight(OLD_BT, OLD_BT, MASK_BT, "token", 2.0).tolist() == [[1.0, 1.0], [1.0, 1.0]]

    @pytest.mark.parametrize(
        ("level", "expected"),
        # Surrogates 2.4, 1 and -0.8 of tokens (see above), 1.5 and -0.8 of sequences; the KL is not weighed.
        [("token", -(3 * 2.4 + 2 * 1 - 0.5 * 0.8) / 2), ("sequence", -(3 * 1.5 - 0.5 * 0.8) / 2)],
    )
    def test_weighs_the_surrogate_by_hand(self, level: str, expected: float) -> None:
        old_BT = OLD_BT.clone().requires_grad_()
        weight_BT = sampler_weight(old_BT, self.SAMPLED_BT, MASK_BT, level, 3.0)
        assert not weight_BT.requires_grad
        options: dict[str, Any] = {"ratio_level": level, "sampler_weight_NKR": weight_BT}
        args = (LOG_PROBS_BT, OLD_BT, LOG_PROBS_BT - 1, ADVANTAGES_B, MASK_BT)
        assert policy_loss(*args, beta=0.0, **options).loss.item() == pytest.approx(expected)
        kl = 3 * (math.exp(-1) + 1 - 1) / 2  # k3 of d = 1, three tokens over two sequences
        assert policy_loss(*args, beta=0.1, **options).loss.item() == pytest.approx(expected + 0.1 * kl)

    def test_refuses(self) -> None:
        with pytest.raises(ValueError, match=r"ratio_level is 'word', allowed: token, sequence"):
            sampler_weight(OLD_BT, OLD_BT, MASK_BT, "word", 2.0)
