"""What others make of a reward model's scores before a policy is trained on them.

Axes: N queries, K responses of each, M reference responses of each.
"""

import torch
from torch import Tensor


def preference_as_reward(scores_NK: Tensor, references_NM: Tensor) -> Tensor:
    """PAR: 1/M Σ_m σ(r - r_ref,m), the mean chance by Bradley-Terry that a response is preferred to a reference's to
    the same prompt (Fu et al., 2025, arXiv 2502.18770).

    Between 0 and 1, and 1/2 where all references score the same as the response; within a group it keeps the order.

    Returns:
        Rewards NK.
    """
    return torch.sigmoid(scores_NK[..., None] - references_NM[:, None]).mean(-1)


def length_penalised(scores_NK: Tensor, lengths_NK: Tensor, per_token: float, free: int) -> Tensor:
    """r - λ max(0, |y| - free), in reward units a token. Linear from the first token on with free = 0, as in Singhal
    et al., 2023, arXiv 2310.03716, but for a constant."""
    return scores_NK - per_token * (lengths_NK - free).clamp(min=0)
