"""A model's sizes that configurations name in many ways: its context, its width, what it keeps of tokens."""

from __future__ import annotations

from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin

from r2m.models.families import longest

CONTEXT = "max_position_embeddings", "max_seq_len", "max_target_positions"

# Families whose first token has the position after the padding's id (1 as a rule): the positions before are lost.
PADDED_POSITIONS = frozenset({
    "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "mpnet",
    "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
})  # fmt: skip


def text_of(hf_config: Any) -> Any:
    """The part of a configuration that says what reads and writes text."""
    text = hf_config.get_text_config(decoder=True)
    return getattr(text, "decoder_config", text)  # BLT's own has no sizes


def context_of(hf_config: Any) -> int | None:
    """Tokens of the longest sequence; None where the family sets no limit (Bloom, Mamba).

    Phi-3's long rope ends where it would begin: there the length of the longest sequence decides how all of a batch
    are read, and what was kept of a shorter one is wrong.
    """
    text = text_of(hf_config)
    sizes = [getattr(text, name, None) for name in CONTEXT]
    size = next((s for s in sizes if isinstance(s, int) and s > 0), None)  # XLNet has -1
    if size is not None and text.model_type in PADDED_POSITIONS:
        size -= max(text.pad_token_id or 0, 1) + 1
    return min((limit for limit in (size, longest(hf_config)) if limit is not None), default=None)


def width_of(hf_config: Any) -> int:
    """D of the last hidden states; AttributeError where the configuration has none.

    OPT-350m projects them to the width of its embeddings.
    """
    text = text_of(hf_config)
    return int(getattr(text, "word_embed_proj_dim", None) or text.hidden_size)


def kept_values(hf_config: Any) -> tuple[int, int]:
    """What a model keeps to go on from, in all layers: values of each token (its keys and values), and of a whole
    sequence (states of recurrent layers; about, since configurations describe them in a dozen ways)."""
    text = text_of(hf_config)
    kept = state = 0
    layers = getattr(text, "per_layer_config", None) or [text] * text.num_hidden_layers
    for own, layer in zip(layers, DynamicCache(config=text).layers, strict=False):
        heads = getattr(own, "num_attention_heads", None)
        if heads and isinstance(layer, DynamicLayer):
            kept += _keys_and_values(own)
        if not heads or isinstance(layer, LinearAttentionCacheLayerMixin):
            state += _state(own)
    return kept, state


def _keys_and_values(text: Any) -> int:
    """Values of one token in one layer."""
    if rank := getattr(text, "kv_lora_rank", None):  # latent attention keeps what all heads are made from
        return int(rank + text.qk_rope_head_dim)
    heads = getattr(text, "num_key_value_heads", None) or getattr(text, "num_kv_heads", None)
    if getattr(text, "multi_query", False) and not getattr(text, "new_decoder_architecture", False):
        heads = 1
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * (heads or text.num_attention_heads) * width)


def _state(text: Any) -> int:
    """Values of one recurrent layer's state: each channel has as many as the state is wide, each head of linear
    attention its keys' width times its values'."""

    def size(*names: str, default: int = 1) -> int:
        return next((value for name in names if (value := getattr(text, name, None))), default)

    if heads := size("linear_num_value_heads", "linear_num_heads", default=0):
        keys, values = (
            size("linear_key_head_dim", "linear_head_dim"),
            size("linear_value_head_dim", "linear_head_dim"),
        )
        return heads * keys * values
    channels = size("mamba_d_ssm", default=int(size("expand", "mamba_expand") * text.hidden_size))
    return channels * size("state_size", "ssm_state_size", "mamba_d_state", "conv_L_cache")
