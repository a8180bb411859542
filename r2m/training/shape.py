"""The dimensions of a model, from which the memory that it takes is worked out."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from r2m.errors import UserError, said
from r2m.models.dense import DenseConfig
from r2m.models.families import (
    CacheUse,
    cache_use_of,
    context_of,
    kept_values,
    policy_refusal,
    reward_model_refusal,
    text_of,
    width_of,
)


@dataclass(frozen=True)
class Shape:
    """Dimensions of a model, without its weights."""

    parameters: int
    width: int
    layers: int
    kv_values: int  # keys and values of a token, in all layers
    mlp_values: int  # that the backward keeps of a token in one layer's MLP
    vocabulary: int
    context: int | None  # tokens; None: no limit
    stored: str = "float32"  # dtype of the saved weights
    state_values: int = 0  # of a sequence, whatever its length: what recurrent layers keep
    cache_use: CacheUse = CacheUse.SHARED  # how its prompts and responses run
    # Linear layers but the output's, by the last part of their names: inputs and outputs, summed over layers.
    linear: tuple[tuple[str, int], ...] = field(default=(), repr=False, compare=False)


def shape_of(hf_config: Any, field: str = "policy.model") -> Shape:
    """Dimensions of what is made of a configuration: a policy, or with another `field` a reward model.

    Raises UserError, one line that names `field`, where there is no such model, it can't be built, or its family
    can't be a policy or a reward model.
    """
    is_policy = field == "policy.model"
    why = (policy_refusal if is_policy else reward_model_refusal)(hf_config)
    if why is not None:
        raise UserError(f"{field} = {hf_config.name_or_path!r}: {why}")
    if isinstance(hf_config, DenseConfig):
        return _worked_out(hf_config, is_policy)
    try:
        return _built(hf_config, is_policy)
    except Exception as error:  # whatever a family's own code raises at sizes that don't fit
        kind = "causal language model" if is_policy else "sequence classifier"
        raise UserError(
            f"{field} = {hf_config.name_or_path!r}: no {kind} can be planned from its configuration of "
            f"{hf_config.model_type!r}; {said(error)[:200]}"
        ) from None


def _worked_out(c: DenseConfig, is_policy: bool) -> Shape:
    tied = is_policy and c.tie_word_embeddings
    return Shape(
        parameters=c.parameters(head=0 if tied else (c.vocab_size if is_policy else c.num_labels) * c.hidden_size),
        width=width_of(c),
        layers=c.num_hidden_layers,
        kv_values=c.num_hidden_layers * 2 * c.num_key_value_heads * c.head_dim,
        mlp_values=(4 if c.gated else 2) * c.intermediate_size,
        vocabulary=c.vocab_size,
        context=context_of(c),
        stored=c.dtype or "float32",
        linear=tuple((name, c.num_hidden_layers * size) for name, size in c.linear.items()),
    )


def _built(hf_config: Any, is_policy: bool) -> Shape:
    """Of any family: the parameters are counted on a model without storage."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    with torch.device("meta"):
        model = (AutoModelForCausalLM if is_policy else AutoModelForSequenceClassification).from_config(hf_config)
    text = text_of(hf_config)
    kv_values, state_values = kept_values(hf_config)
    output = model.get_output_embeddings()
    linear: Counter[str] = Counter()
    for name, layer in model.named_modules():
        if layer is not output and type(layer).__name__ in ("Linear", "Conv1D"):
            linear[name.rpartition(".")[2]] += sum(layer.weight.shape)
    gated = any(name.endswith("gate_proj") for name, _ in model.named_modules())
    inner = getattr(text, "intermediate_size", None) or 4 * width_of(hf_config)
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        width=width_of(hf_config),
        layers=text.num_hidden_layers,
        kv_values=kv_values,
        mlp_values=(4 if gated else 2) * (max(inner) if isinstance(inner, list) else inner),
        vocabulary=text.vocab_size,
        context=context_of(hf_config),
        stored=str(getattr(hf_config, "dtype", None) or torch.float32).removeprefix("torch."),
        state_values=state_values,
        cache_use=cache_use_of(hf_config),
        linear=tuple(linear.items()),
    )
