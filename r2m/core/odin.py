"""ODIN's losses: one head of the reward for quality, another for a feature that should not pay.

Chen et al., 2024, arXiv 2402.07319. Axes: B responses, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def pearson(x_B: Tensor, y_B: Tensor) -> Tensor:
    """Pearson's, over the responses; 0, with gradient 0, where one of them does not vary."""
    x_B, y_B = x_B - x_B.mean(), y_B - y_B.mean()
    scale = x_B.norm() * y_B.norm()
    # Nothing is divided by 0, not even in the branch that `where` drops, whose gradient would be NaN.
    varies = scale > 1e-12
    return torch.where(varies, (x_B * y_B).sum() / torch.where(varies, scale, 1.0), 0.0)


def feature_loss(quality_B: Tensor, feature_head_B: Tensor, feature_B: Tensor) -> Tensor:
    """|ρ(r_Q, f)| - ρ(r_F, f): least, -1, where quality has nothing to do with the feature, and the feature's head
    goes with it."""
    return pearson(quality_B, feature_B).abs() - pearson(feature_head_B, feature_B)


def orthogonality_loss(weights_2D: Tensor) -> Tensor:
    """|W_Q W_Fᵀ| of the two heads' weights, each at unit length: between 0 and 1."""
    quality_D, feature_D = F.normalize(weights_2D, dim=-1)
    return (quality_D * feature_D).sum().abs()
