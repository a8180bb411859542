"""The losses that train the reward model and its feedback head (Sec. 4.2). Axes: N queries, K responses per query."""

import torch
import torch.nn.functional as F
from torch import Tensor

# The gradient of Eq. 5 grows as 1 / std. The floor (reward units) keeps it finite where the spread vanishes.
STD_FLOOR = 1e-6


def bradley_terry(chosen_N: Tensor, rejected_N: Tensor) -> Tensor:
    """-log σ(r_w - r_l), one value a pair, not averaged (Eqs. 4 and 7). Finite for any finite difference.

    Args:
        chosen_N, rejected_N: scores of the preferred and the other response, in reward units.

    Returns:
        Losses N, in nats: log 2 where the scores are equal.
    """
    return -F.logsigmoid(chosen_N - rejected_N)


def preference_loss(first_N: Tensor, second_N: Tensor, preference_N: Tensor) -> Tensor:
    """-P log σ(r_1 - r_2) - (1 - P) log σ(r_2 - r_1), in nats, P being the chance that a first response is preferred.

    Bradley-Terry's loss where P = 1; of a tie, P = 1/2, it is least at equal scores: log 2."""
    first, second = bradley_terry(first_N, second_N), bradley_terry(second_N, first_N)
    return preference_N * first + (1 - preference_N) * second


def group_reward_entropy(rewards_NK: Tensor) -> Tensor:
    """Entropy of the softmax over the standardised rewards of each group (Eq. 5), population std.

    Invariant to r -> a r + b with a > 0: it reshapes relative gaps and never rewards a wider scale, and it is
    constant for K = 2. Equal rewards give log K, its maximum, with gradient 0.

    Args:
        rewards_NK: scores of the K responses to each of N queries, in reward units.

    Returns:
        Entropies N, in nats, between 0 and log K.
    """
    centred_NK = rewards_NK - rewards_NK.mean(-1, keepdim=True)
    variance_N1 = centred_NK.square().mean(-1, keepdim=True)
    # Clamped before the root, whose derivative at 0 is infinite.
    log_p_NK = F.log_softmax(centred_NK / variance_N1.clamp(min=STD_FLOOR**2).sqrt(), dim=-1)
    return -(log_p_NK.exp() * log_p_NK).sum(-1)


def gre_bt(bt_N: Tensor, entropy_N: Tensor, alpha: float) -> Tensor:
    """(1 - α) L_BT + α H_group, one value a group (Eq. 6).

    Raises:
        ValueError: alpha outside [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}, allowed: 0 to 1")
    return (1 - alpha) * bt_N + alpha * entropy_N


def best_and_worst(rewards_NK: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the highest and of the lowest score of each group: its preference pair (Alg. 1, line 16).

    The first of equals is taken, so a group without spread pairs a response with itself: its Bradley-Terry
    loss is log 2, with gradient 0.

    Returns:
        best_N and worst_N, int64 indices into K.

    Raises:
        ValueError: a score is NaN, which has no order.
    """
    if torch.isnan(rewards_NK).any():
        rows = torch.isnan(rewards_NK).any(-1).nonzero().flatten().tolist()
        raise ValueError(f"rewards_NK: NaN in groups {rows}, allowed: numbers, which can be ordered")
    return rewards_NK.argmax(-1), rewards_NK.argmin(-1)
