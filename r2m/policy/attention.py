"""Attention of groups of query heads that share keys and values, without a copy of these for each query head.

transformers repeats keys and values where there is a mask, since CUDA's fast kernels take no groups with one; the
CPU's does. The numbers are the same.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward


def grouped_sdpa(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    dropout: float = 0.0, scaling: float | None = None, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """As transformers' `sdpa_attention_forward`."""
    grouped = query.shape[1] != key.shape[1] and attention_mask is not None and query.device.type == "cpu"
    if not grouped or kwargs.get("position_bias") is not None or kwargs.get("cache") is not None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    out = F.scaled_dot_product_attention(query, key, value, attention_mask, dropout, scale=scaling, enable_gqa=True)
    return out.transpose(1, 2).contiguous(), None


def use_grouped_attention() -> None:
    """In the place of "sdpa" in all models of this process."""
    AttentionInterface.register("sdpa", grouped_sdpa)
