"""Advantage estimators. Axes: N queries, K responses per query, R response tokens.

T is R, or 1 where an advantage is the same for all tokens of its response.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

STD_EPSILON = 1e-4  # TRL 1.16's for GRPO, in reward units: a group without spread divides 0 by it
VARIANCE_EPSILON = 1e-8  # verl's for its whitening, in reward units squared

Total = Callable[[Tensor], Tensor]  # a tensor -> its sum over all workers


def rloo(rewards_NK: Tensor) -> Tensor:
    """REINFORCE leave-one-out: each reward minus the mean of the other K - 1 of its query (Eq. 1).

    Ahmadian et al., 2024, "Back to Basics", arXiv:2402.14740.

    Args:
        rewards_NK: scores of the K responses to each of N queries, in reward units.

    Returns:
        Advantages NK, in reward units, not whitened. Each row sums to 0; a row of equal rewards is exactly 0.
        A NaN spoils the row it is in, and no other.

    Raises:
        ValueError: K < 2, which leaves no baseline.
    """
    K = rewards_NK.shape[-1]
    if K < 2:
        raise ValueError(f"rewards_NK: K is {K}, and the leave-one-out baseline needs K >= 2")
    return _centred(rewards_NK) * (K / (K - 1))


def grpo(rewards_NK: Tensor) -> Tensor:
    """Group-relative: (r - mean) / std of the K rewards of a query.

    Shao et al., 2024, "DeepSeekMath", arXiv:2402.03300, Sec. 4.1.2, which says neither which standard deviation
    nor what a group without spread has. As in TRL and verl: the sample's (K - 1), plus STD_EPSILON.

    Returns:
        Advantages NK, without unit. Each row sums to 0; a row of equal rewards is exactly 0.

    Raises:
        ValueError: K < 2, which has no standard deviation.
    """
    K = rewards_NK.shape[-1]
    if K < 2:
        raise ValueError(f"rewards_NK: K is {K}, and a group's standard deviation needs K >= 2")
    centred_NK = _centred(rewards_NK)
    std_N1 = (centred_NK.square().sum(-1, keepdim=True) / (K - 1)).sqrt()
    return centred_NK / (std_N1 + STD_EPSILON)


def remax(to_go_NKT: Tensor, greedy_N: Tensor) -> Tensor:
    """The return from each token on minus the score of the greedy response to the query.

    Li et al., 2023, "ReMax", arXiv:2310.10505, Sec. 4, whose K is 1.

    Args:
        to_go_NKT: returns, as for `reinforce_pp`.
        greedy_N: scores of the greedy responses under the same reward, in reward units, without any KL.

    Returns:
        Advantages NKT, in reward units.
    """
    return to_go_NKT - greedy_N[:, None, None]


def reinforce_pp(to_go_NKT: Tensor, mask_NKR: Tensor, total: Total) -> Tensor:
    """REINFORCE++: the return from each token on, whitened over the tokens of the whole round.

    Hu et al., 2025, "REINFORCE++", arXiv:2501.03262. Mean and variance are over tokens, the sample's, as in verl.

    Args:
        to_go_NKT: returns: the score minus β times the KL of this token and all after it, where the KL is in the
            reward (`reward_to_go`), else T = 1: the score.
        mask_NKR: true at response tokens; what is elsewhere counts for nothing.
        total: sums a tensor over all workers, so that each whitens alike.

    Returns:
        Advantages NKT, without unit: mean 0 and variance 1 over the tokens. Equal returns are 0, up to rounding.
        A NaN at a response token spoils the round.
    """
    returns_NKT = to_go_NKT.double()
    own = torch.stack([mask_NKR.sum(), torch.where(mask_NKR, returns_NKT, 0.0).sum()])
    tokens, summed = total(own)
    centred_NKT = returns_NKT - summed / tokens
    variance = total(torch.where(mask_NKR, centred_NKT.square(), 0.0).sum()) / (tokens - 1).clamp(min=1)
    return (centred_NKT * (variance + VARIANCE_EPSILON).rsqrt()).to(to_go_NKT.dtype)


def reinforce_pp_baseline(rewards_NK: Tensor, mask_NKR: Tensor, total: Total) -> Tensor:
    """REINFORCE++-baseline: the reward minus its group's mean, then whitened as by `reinforce_pp`.

    The variant of Hu et al., 2025, for several responses a query.

    Returns:
        Advantages NK, without unit: mean 0 and variance 1 over the tokens of the round.

    Raises:
        ValueError: K < 2: a reward is its own mean.
    """
    K = rewards_NK.shape[-1]
    if K < 2:
        raise ValueError(f"rewards_NK: K is {K}, and the group's mean as a baseline needs K >= 2")
    return reinforce_pp(_centred(rewards_NK)[..., None], mask_NKR, total)[..., 0]


def reward_to_go(scores_NK: Tensor, kl_NKR: Tensor, beta: float) -> Tensor:
    """The return from each token on, NKR in reward units: the score, paid at the end, minus β KL of each token.

    Args:
        kl_NKR: estimated KL at each token, in nats, 0 at padding.
    """
    return scores_NK[..., None] - beta * kl_NKR.flip(-1).cumsum(-1).flip(-1)


class Batch(NamedTuple):
    """A round as the estimators see it."""

    rewards_NK: Tensor  # of the whole response, its KL taken off where that is in the reward
    to_go_NKT: Tensor  # of each token and those after it, likewise
    mask_NKR: Tensor
    greedy_N: Tensor | None  # scores of the greedy responses; ReMax alone has them sampled
    total: Total


class Estimator(NamedTuple):
    advantages: Callable[[Batch], Tensor]  # NKT of a round
    greedy: bool = False  # it wants a greedy response to each query


def _remax(batch: Batch) -> Tensor:
    assert batch.greedy_N is not None
    return remax(batch.to_go_NKT, batch.greedy_N)


# Keys are the values of algorithm.advantage.
ADVANTAGES: dict[str, Estimator] = {
    "rloo": Estimator(lambda b: rloo(b.rewards_NK)[..., None]),
    "grpo": Estimator(lambda b: grpo(b.rewards_NK)[..., None]),
    "remax": Estimator(_remax, greedy=True),
    "reinforce_pp": Estimator(lambda b: reinforce_pp(b.to_go_NKT, b.mask_NKR, b.total)),
    "reinforce_pp_baseline": Estimator(lambda b: reinforce_pp_baseline(b.rewards_NK, b.mask_NKR, b.total)[..., None]),
}


def _centred(rewards_NK: Tensor) -> Tensor:
    """Minus the row's mean. Relative to the first: exactly 0 for equal rewards, whose mean may be an ulp off."""
    relative_NK = rewards_NK - rewards_NK[..., :1]
    return relative_NK - relative_NK.mean(-1, keepdim=True)
