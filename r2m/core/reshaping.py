"""What others make of a reward model's scores before a policy is trained on them.

Axes: N queries, K responses of each, M reference responses of each, or members of an ensemble.
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


def ensemble_score(members_MNK: Tensor, how: str, uwo_lambda: float = 0.0) -> Tensor:
    """One reward of those of M reward models (Coste et al., 2023, arXiv 2310.02743; Eisenstein et al., 2023, arXiv
    2312.09244): their mean; the worst case, their min; or uwo, mean - λ variance, the population's over the members.

    Returns:
        Rewards NK.

    Raises:
        ValueError: another `how`.
    """
    if how == "mean":
        return members_MNK.mean(0)
    if how == "min":
        return members_MNK.min(0).values
    if how == "uwo":
        return members_MNK.mean(0) - uwo_lambda * members_MNK.var(0, correction=0)
    raise ValueError(f"how is {how!r}, allowed: mean, min, uwo")
