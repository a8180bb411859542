"""The policy's loss (Eq. 2), with what frameworks that name it alike do differently as explicit arguments.

Axes: B trajectories, T response tokens. Log-probs are of the sampled tokens, in nats.
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

# Of values_BT, 0 at padding. The normalisers are the whole minibatch's, so that its parts sum to it.
LOSS_AGGREGATIONS: dict[str, Callable[[Tensor, Tensor, Any, Any], Tensor]] = {
    "token_mean": lambda values_BT, mask_BT, sequences, tokens: values_BT.sum() / tokens,
    "sequence_mean_token_sum": lambda values_BT, mask_BT, sequences, tokens: values_BT.sum() / sequences,
    "sequence_mean_token_mean": lambda values_BT, mask_BT, sequences, tokens: (
        (values_BT.sum(-1) / mask_BT.sum(-1).clamp(min=1)).sum() / sequences
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


def kl_estimate(log_probs_BT: Tensor, ref_log_probs_BT: Tensor, estimator: str) -> Tensor:
    """Estimated D_KL[π || π_ref] at each sampled token, BT in nats, by one of KL_ESTIMATORS.

    Raises:
        ValueError: an unknown estimator.
    """
    _check("estimator", estimator, KL_ESTIMATORS)
    return KL_ESTIMATORS[estimator](log_probs_BT - ref_log_probs_BT)


def kl_in_reward(
    rewards_B: Tensor, log_probs_BT: Tensor, ref_log_probs_BT: Tensor, mask_BT: Tensor, beta: float, estimator: str
) -> Tensor:
    """r - β KL, with the KL summed over a trajectory's response tokens (Eq. 8). B, in reward units.

    Raises:
        ValueError: an unknown estimator.
    """
    kl_BT = kl_estimate(log_probs_BT, ref_log_probs_BT, estimator)
    return rewards_B - beta * kl_BT.masked_fill(~mask_BT.bool(), 0.0).sum(-1)


def policy_loss(
    log_probs_BT: Tensor,
    old_log_probs_BT: Tensor,
    ref_log_probs_BT: Tensor | None,
    advantages_B: Tensor,
    mask_BT: Tensor,
    *,
    ratio_level: str = "token",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    beta: float,
    kl_placement: str = "loss",
    kl_estimator: str = "k3",
    loss_aggregation: str = "sequence_mean_token_sum",
    total_sequences: float | Tensor | None = None,
    total_tokens: float | Tensor | None = None,
) -> PolicyLoss:
    """Minus Eq. 2: the clipped surrogate and the KL to the reference.

    Args:
        log_probs_BT: of the policy that is trained, with gradient.
        old_log_probs_BT: of the policy that sampled.
        ref_log_probs_BT: of the reference. Unused, and may be None, if beta is 0 or the KL is in the reward.
        advantages_B: Â (Eq. 1), one a trajectory; or one a token, BT, where ratio_level is "token".
        mask_BT: true at response tokens. What is elsewhere is ignored, and an empty row contributes nothing.
        ratio_level: "token", or "sequence": one ratio a trajectory, exp of the summed log-ratios, whose
            surrogates are averaged over sequences; loss_aggregation is then of the KL alone.
        clip_low, clip_high: the ratio is clipped to [1 - clip_low, 1 + clip_high].
        beta: β, the weight of the KL, in the loss only where kl_placement is "loss".
        kl_placement: "loss", or "reward": the caller has it there, by `kl_in_reward`.
        kl_estimator: a key of KL_ESTIMATORS.
        loss_aggregation: a key of LOSS_AGGREGATIONS.
        total_sequences, total_tokens: trajectories with a response token, and response tokens, of the whole
            minibatch over all microbatches and workers; this batch's own by default. Given them, losses and
            gradients of the parts sum to those of the whole.

    Raises:
        ValueError: an unknown option, an advantage for each token of a ratio of the sequence, or
            ref_log_probs_BT is None where it is needed.
    """
    _check("ratio_level", ratio_level, RATIO_LEVELS)
    _check("kl_placement", kl_placement, KL_PLACEMENTS)
    _check("kl_estimator", kl_estimator, KL_ESTIMATORS)
    _check("loss_aggregation", loss_aggregation, LOSS_AGGREGATIONS)
    advantages_BT = advantages_B if advantages_B.dim() == 2 else advantages_B.unsqueeze(-1)
    if ratio_level == "sequence" and advantages_BT.shape[-1] > 1:
        raise ValueError("ratio_level is 'sequence', allowed: one advantage a trajectory, not one a token")
    mask_BT = mask_BT.bool()
    if total_sequences is None:
        total_sequences = mask_BT.any(-1).sum().clamp(min=1)
    if total_tokens is None:
        total_tokens = mask_BT.sum().clamp(min=1)

    # Filled before exp, so that padding can neither overflow nor send NaN back.
    log_ratio_BT = (log_probs_BT - old_log_probs_BT).masked_fill(~mask_BT, 0.0)
    if ratio_level == "sequence":  # T = 1 from here on: one term a trajectory
        log_ratio_BT, term_mask_BT = log_ratio_BT.sum(-1, keepdim=True), mask_BT.any(-1, keepdim=True)
        surrogate_aggregation = "sequence_mean_token_sum"
    else:
        term_mask_BT, surrogate_aggregation = mask_BT, loss_aggregation
    ratio_BT = log_ratio_BT.exp()
    unclipped_BT = ratio_BT * advantages_BT
    clipped_BT = ratio_BT.clamp(1 - clip_low, 1 + clip_high) * advantages_BT
    surrogate_BT = torch.minimum(unclipped_BT, clipped_BT).masked_fill(~term_mask_BT, 0.0)
    aggregate = LOSS_AGGREGATIONS[surrogate_aggregation]
    loss = -aggregate(surrogate_BT, term_mask_BT, total_sequences, total_tokens)

    if beta != 0 and kl_placement == "loss":
        if ref_log_probs_BT is None:
            raise ValueError(
                f"ref_log_probs_BT is None, allowed: a tensor where beta = {beta} weighs a KL in the loss"
            )
        d_BT = (log_probs_BT - ref_log_probs_BT).masked_fill(~mask_BT, 0.0)
        aggregate = LOSS_AGGREGATIONS[loss_aggregation]
        kl_BT = KL_ESTIMATORS[kl_estimator](d_BT)
        loss = loss + beta * aggregate(kl_BT, mask_BT, total_sequences, total_tokens)

    return PolicyLoss(
        loss=loss,
        clipped_terms=((clipped_BT < unclipped_BT) & term_mask_BT).sum(),
        terms=term_mask_BT.sum(),
        max_ratio_deviation=(ratio_BT.detach() - 1).abs().max(),
    )


def _check(name: str, value: str, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, allowed: {', '.join(allowed)}")
