"""The dimensions of a model that its memory follows from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM


@dataclass(frozen=True)
class Shape:
    """Dimensions of a model, without its weights."""

    parameters: int
    width: int
    layers: int
    kv_width: int  # of a token's key in one layer: key-value heads × their width
    mlp_values: int  # that the backward keeps of a token in one layer's MLP
    vocabulary: int
    context: int  # tokens
    stored: str = "float32"  # dtype of the saved weights


def shape_of(hf_config: Any, auto_class: Any = AutoModelForCausalLM) -> Shape:
    """Dimensions from a Hugging Face config; the parameters are counted on a model without storage."""
    with torch.device("meta"):
        model = auto_class.from_config(hf_config)
    c, heads = hf_config, hf_config.num_attention_heads
    head_width = getattr(c, "head_dim", None) or c.hidden_size // heads
    gated = any(name.endswith("gate_proj") for name, _ in model.named_modules())
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        width=c.hidden_size,
        layers=c.num_hidden_layers,
        kv_width=(getattr(c, "num_key_value_heads", None) or heads) * head_width,
        mlp_values=(4 if gated else 2) * (getattr(c, "intermediate_size", None) or 4 * c.hidden_size),
        vocabulary=c.vocab_size,
        context=c.max_position_embeddings,
        stored=str(getattr(c, "dtype", None) or torch.float32).removeprefix("torch."),
    )
