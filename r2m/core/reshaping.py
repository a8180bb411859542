"""What others make of a reward model's scores before a policy is trained on them.

Axes: N queries, K responses of each, M reference responses of each, or members of an ensemble, D width.
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


def precision(moment_DD: Tensor, ridge: float) -> Tensor:
    """M⁻¹, fp32, of M = ridge I + Σ e eᵀ over the last-layer features e of a reward model's training responses (Zhang
    et al., 2024, arXiv 2403.05171). Inverted in fp64."""
    moment_DD = moment_DD.double()
    identity = torch.eye(len(moment_DD), dtype=torch.float64, device=moment_DD.device)
    return torch.cholesky_inverse(torch.linalg.cholesky(ridge * identity + moment_DD)).float()


def uncertainty(e_NKD: Tensor, precision_DD: Tensor) -> Tensor:
    """sqrt(eᵀ M⁻¹ e), NK: the half-width of a linear reward's confidence interval at e, but for a factor. The bound
    r - b sqrt(eᵀ M⁻¹ e) penalises each response by itself."""
    return ((e_NKD @ precision_DD) * e_NKD).sum(-1).clamp(min=0).sqrt()


def adversarial_shift(e_NKD: Tensor, g_D: Tensor, precision_DD: Tensor) -> Tensor:
    """eᵀ M⁻¹ g / sqrt(gᵀ M⁻¹ g), NK, 0 where g is: what AdvPO takes off a response's reward, times b.

    g is the mean feature of the policy's responses less that of reference responses. Of all score layers φ with
    (φ - φ̂)ᵀ M (φ - φ̂) <= b², φ̂ - b M⁻¹ g / sqrt(gᵀ M⁻¹ g) is the worst for the policy against the reference: it
    gives r - b times this.
    """
    direction_D = precision_DD @ g_D
    size = (g_D @ direction_D).clamp(min=0).sqrt()
    return e_NKD @ direction_D / size if size > 0 else torch.zeros_like(e_NKD[..., 0])
