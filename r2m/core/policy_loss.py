"""The policy's loss (Eq. 2), with what frameworks that name it alike do differently as explicit arguments.

Axes: N queries, K responses, R response tokens; or any others before R. Log-probs are of the sampled tokens, in nats.
"""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor

# What TRL 1.16's RLOOTrainer minimises: one ratio a sequence, and the old policy's KL subtracted from the
# reward (`kl_in_reward` with this estimator) before the advantage, none in the loss. Its default beta: 0.05.
TRL_RLOO: dict[str, Any] = {
    "ratio_level": "sequence",
    "clip_low": 0.2,
    "clip_high": 0.2,
    "kl_placement": "reward",
    "kl_estimator": "k1",
    "loss_aggregation": "sequence_mean_token_sum",
}

# D_KL[π || π_ref] of a token, from d = log π - log π_ref where π sampled it. k1 and k3 are unbiased, k2 and
# k3 are never negative. In a loss the gradient counts, and in expectation on-policy k1's is 0, k2's is that
# of D_KL[π || π_ref], k3's that of D_KL[π_ref || π].
KL_ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "k1": lambda d: d,
    "k2": lambda d: 0.5 * d.square(),
    "k3": lambda d: torch.expm1(-d) + d,
}

# Of values_NKR, 0 at padding. The normalisers are the whole minibatch's, so that its parts sum to it.
LOSS_AGGREGATIONS: dict[str, Callable[[Tensor, Tensor, Any, Any], Tensor]] = {
    "token_mean": lambda values_NKR, mask_NKR, sequences, tokens: values_NKR.sum() / tokens,
    "sequence_mean_token_sum": lambda values_NKR, mask_NKR, sequences, tokens: values_NKR.sum() / sequences,
    "sequence_mean_token_mean": lambda values_NKR, mask_NKR, sequences, tokens: (
        (values_NKR.sum(-1) / mask_NKR.sum(-1).clamp(min=1)).sum() / sequences
    ),
}
RATIO_LEVELS = ("token", "sequence")
KL_PLACEMENTS = ("loss", "reward")


class PolicyLoss(NamedTuple):
    """The loss, and statistics without gradient. A term is a token or a sequence, by ratio_level."""

    loss: Tensor  # scalar: this batch's share of the minibatch's loss
    clipped_terms: Tensor  # scalar: terms whose gradient the clip removes
    terms: Tensor  # scalar: terms in all; clip fraction = clipped_terms / terms
    max_ratio_deviation: Tensor  # scalar: the greatest |ratio - 1|, 0 for the first minibatch of a round


def kl_estimate(log_probs_NKR: Tensor, ref_log_probs_NKR: Tensor, estimator: str) -> Tensor:
    """Estimated D_KL[π || π_ref] at each sampled token, NKR in nats, by one of KL_ESTIMATORS.

    Raises:
        ValueError: an unknown estimator.
    """
    _check("estimator", estimator, KL_ESTIMATORS)
    return KL_ESTIMATORS[estimator](log_probs_NKR - ref_log_probs_NKR)


def kl_in_reward(
    rewards_NK: Tensor,
    log_probs_NKR: Tensor,
    ref_log_probs_NKR: Tensor,
    mask_NKR: Tensor,
    beta: float,
    estimator: str,
) -> Tensor:
    """r - β KL, with the KL summed over a trajectory's response tokens (Eq. 8). NK, in reward units.

    Raises:
        ValueError: an unknown estimator.
    """
    kl_NKR = kl_estimate(log_probs_NKR, ref_log_probs_NKR, estimator)
    return rewards_NK - beta * kl_NKR.masked_fill(~mask_NKR.bool(), 0.0).sum(-1)


def sampler_weight(
    old_log_probs_NKR: Tensor, sampler_log_probs_NKR: Tensor, mask_NKR: Tensor, ratio_level: str, cap: float
) -> Tensor:
    """min(π_old / π_sampler, cap): what makes up for an engine whose log-probs are not the trainer's (Yao et al.,
    2025, "Your efficient RL framework secretly brings you off-policy RL training": truncated importance sampling).

    Of each token, NKR and 1 at padding, or with ratio_level "sequence" of each trajectory, NK1. No gradient.

    Raises:
        ValueError: an unknown ratio_level.
    """
    _check("ratio_level", ratio_level, RATIO_LEVELS)
    log_NKR = (old_log_probs_NKR - sampler_log_probs_NKR).detach().masked_fill(~mask_NKR.bool(), 0.0)
    if ratio_level == "sequence":
        log_NKR = log_NKR.sum(-1, keepdim=True)
    return log_NKR.exp().clamp(max=cap)


def policy_loss(
    log_probs_NKR: Tensor,
    old_log_probs_NKR: Tensor,
    ref_log_probs_NKR: Tensor | None,
    advantages_NK: Tensor,
    mask_NKR: Tensor,
    *,
    ratio_level: str = "token",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    beta: float,
    kl_placement: str = "loss",
    kl_estimator: str = "k3",
    loss_aggregation: str = "sequence_mean_token_sum",
    sampler_weight_NKR: Tensor | None = None,
    total_sequences: float | Tensor | None = None,
    total_tokens: float | Tensor | None = None,
) -> PolicyLoss:
    """Minus Eq. 2: the clipped surrogate and the KL to the reference.

    Args:
        log_probs_NKR: of the policy that is trained, with gradient.
        old_log_probs_NKR: of the policy that sampled.
        ref_log_probs_NKR: of the reference. Unused, and may be None, if beta is 0 or the KL is in the reward.
        advantages_NK: Â (Eq. 1), one a trajectory; or one a token, NKR, where ratio_level is "token".
        mask_NKR: true at response tokens. What is elsewhere is ignored, and an empty row contributes nothing.
        ratio_level: "token", or "sequence": one ratio a trajectory, exp of the summed log-ratios, whose
            surrogates are averaged over sequences; loss_aggregation is then of the KL alone.
        clip_low, clip_high: the ratio is clipped to [1 - clip_low, 1 + clip_high].
        beta: β, the weight of the KL, in the loss only where kl_placement is "loss".
        kl_placement: "loss", or "reward": the caller has it there, by `kl_in_reward`.
        kl_estimator: a key of KL_ESTIMATORS.
        loss_aggregation: a key of LOSS_AGGREGATIONS.
        sampler_weight_NKR: weighs the surrogate's terms, by `sampler_weight`, where another engine sampled.
        total_sequences, total_tokens: trajectories with a response token, and response tokens, of the whole
            minibatch over all microbatches and workers; this batch's own by default. Given them, losses and
            gradients of the parts sum to those of the whole.

    Raises:
        ValueError: an unknown option, an advantage for each token of a ratio of the sequence, or
            ref_log_probs_NKR is None where it is needed.
    """
    _check("ratio_level", ratio_level, RATIO_LEVELS)
    _check("kl_placement", kl_placement, KL_PLACEMENTS)
    _check("kl_estimator", kl_estimator, KL_ESTIMATORS)
    _check("loss_aggregation", loss_aggregation, LOSS_AGGREGATIONS)
    per_token = advantages_NK.dim() == log_probs_NKR.dim()
    advantages_NKR = advantages_NK if per_token else advantages_NK.unsqueeze(-1)
    if ratio_level == "sequence" and advantages_NKR.shape[-1] > 1:
        raise ValueError("ratio_level is 'sequence', allowed: one advantage a trajectory, not one a token")
    mask_NKR = mask_NKR.bool()
    if total_sequences is None:
        total_sequences = mask_NKR.any(-1).sum().clamp(min=1)
    if total_tokens is None:
        total_tokens = mask_NKR.sum().clamp(min=1)

    # Filled before exp, so that padding can neither overflow nor send NaN back.
    log_ratio_NKR = (log_probs_NKR - old_log_probs_NKR).masked_fill(~mask_NKR, 0.0)
    if ratio_level == "sequence":  # R = 1 from here on: one term a trajectory
        log_ratio_NKR, term_mask_NKR = log_ratio_NKR.sum(-1, keepdim=True), mask_NKR.any(-1, keepdim=True)
        surrogate_aggregation = "sequence_mean_token_sum"
    else:
        term_mask_NKR, surrogate_aggregation = mask_NKR, loss_aggregation
    ratio_NKR = log_ratio_NKR.exp()
    unclipped_NKR = ratio_NKR * advantages_NKR
    clipped_NKR = ratio_NKR.clamp(1 - clip_low, 1 + clip_high) * advantages_NKR
    surrogate_NKR = torch.minimum(unclipped_NKR, clipped_NKR)
    if sampler_weight_NKR is not None:
        surrogate_NKR = surrogate_NKR * sampler_weight_NKR
    surrogate_NKR = surrogate_NKR.masked_fill(~term_mask_NKR, 0.0)
    aggregate = LOSS_AGGREGATIONS[surrogate_aggregation]
    loss = -aggregate(surrogate_NKR, term_mask_NKR, total_sequences, total_tokens)

    if beta != 0 and kl_placement == "loss":
        if ref_log_probs_NKR is None:
            raise ValueError(
                f"ref_log_probs_NKR is None, allowed: a tensor where beta = {beta} weighs a KL in the loss"
            )
        d_NKR = (log_probs_NKR - ref_log_probs_NKR).masked_fill(~mask_NKR, 0.0)
        aggregate = LOSS_AGGREGATIONS[loss_aggregation]
        kl_NKR = KL_ESTIMATORS[kl_estimator](d_NKR)
        loss = loss + beta * aggregate(kl_NKR, mask_NKR, total_sequences, total_tokens)

    return PolicyLoss(
        loss=loss,
        clipped_terms=((clipped_NKR < unclipped_NKR) & term_mask_NKR).sum(),
        terms=term_mask_NKR.sum(),
        max_ratio_deviation=(ratio_NKR.detach() - 1).abs().max(),
    )


def _check(name: str, value: str, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, allowed: {', '.join(allowed)}")
