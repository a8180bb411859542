"""What a configuration tells of a model, in the many ways of its family, before weights are read: how it can be run,
its context, its width, what it keeps of tokens.

`loading.load_policy` checks each model against a plain forward before it trusts what is said here.
"""

from enum import Enum
from typing import Any


class CacheUse(Enum):
    """How a prompt and its responses run through a model, the fastest first."""

    SHARED = "a prompt runs once, and its keys and values are shared by its responses"
    CACHED = "each response runs with its prompt; sampling keeps the model's own state"
    RERUN = "each response runs with its prompt, and in sampling again for every token"


# Positions that do not follow from the mask: counted with the padding, or not to be given.
OWN_POSITIONS = frozenset({
    "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "git", "marian", "mbart", "mvp", "pegasus", "plbart",
    "roformer", "trocr",
})  # fmt: skip
# No cache, one that lives in the model, one whose rows cannot be taken out, or one that forgets how many of the
# tokens before were the padding's id, which has no position of its own (RoBERTa's kin).
NO_CACHE = frozenset({
    "blt", "camembert", "data2vec-text", "deepseek_v4", "minimax", "moshi", "openai-gpt", "qwen4_exp",
    "qwen4_exp_text", "recurrent_gemma", "roberta", "roberta-prelayernorm", "rwkv", "xlm-roberta", "xlm-roberta-xl",
    "xlstm", "xmod",
})  # fmt: skip
# Encoders that are decoders where their configuration says so. (Others leave is_decoder false and are decoders.)
ENCODERS = frozenset({
    "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert",
    "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod",
})  # fmt: skip
# Families whose first token has the position after the padding's id (1 as a rule): the positions before are lost.
PADDED_POSITIONS = frozenset({
    "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "mpnet",
    "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
})  # fmt: skip
REFUSED_POLICIES = {
    "cpmant": "it reads a prompt in both directions",
    "prophetnet": "it predicts several tokens at once, from hidden states of their own",
    "reformer": "its attention depends on the length of the whole sequence",
} | dict.fromkeys(("xlm", "xlnet"), "it reads a sequence in both directions")
REFUSED_REWARD_MODELS = dict.fromkeys(
    ("bart", "bigbird_pegasus", "mbart", "mt5", "mvp", "plbart", "t5", "umt5"),
    "it reads at end tokens, and a response that was cut off has none",
) | dict.fromkeys(
    ("convbert", "fnet", "mobilebert", "nystromformer", "reformer", "xlnet", "yoso"), "padding changes its scores"
)  # fmt: skip
CONTEXT = "max_position_embeddings", "max_seq_len", "max_target_positions"


def policy_refusal(config: Any) -> str | None:
    """Why no policy can be made of such a model; None where one can."""
    if config.model_type in REFUSED_POLICIES:
        return REFUSED_POLICIES[config.model_type]
    if config.model_type in ENCODERS and not config.is_decoder:
        return "it reads a sequence in both directions (is_decoder is false in its config.json)"
    if getattr(config.get_text_config(decoder=True), "use_bidirectional_attention", None) is True:  # not "vision"
        return "it reads a sequence in both directions (use_bidirectional_attention is true in its config.json)"
    return None


def reward_model_refusal(hf_config: Any) -> str | None:
    """Why models of such a family can't be reward models; None where they may be: `check_reward_model` sees."""
    return REFUSED_REWARD_MODELS.get(hf_config.model_type)


def cache_use_of(config: Any) -> CacheUse:
    """The fastest that is right for models of this configuration."""
    if config.model_type in NO_CACHE:
        return CacheUse.RERUN
    from transformers import DynamicCache
    from transformers.cache_utils import LinearAttentionCacheLayerMixin

    layers = DynamicCache(config=config).layers
    if any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers):
        return CacheUse.CACHED  # a recurrent state, which padding on the left would be part of
    return CacheUse.CACHED if config.model_type in OWN_POSITIONS else CacheUse.SHARED


def longest(config: Any) -> int | None:
    """The tokens up to which a position's encoding depends on the position alone; None: it always does.

    Beyond it Phi-3's long rope and dynamic NTK choose the frequencies of all positions by the sequence's length:
    keys and values from before would be wrong, and so would a row in a batch with a longer one.
    """
    text = config.get_text_config(decoder=True)
    rope = getattr(text, "rope_parameters", None) or {}
    layers = [r for r in rope.values() if isinstance(r, dict)] or [rope]
    limits = [
        r.get("original_max_position_embeddings") or text.max_position_embeddings
        for r in layers
        if r.get("rope_type") in ("longrope", "dynamic")
    ]
    return min(limits, default=None)


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
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin

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
        return (heads * size("linear_key_head_dim", "linear_head_dim")
                * size("linear_value_head_dim", "linear_head_dim"))  # fmt: skip
    channels = size("mamba_d_ssm", default=int(size("expand", "mamba_expand") * text.hidden_size))
    return channels * size("state_size", "ssm_state_size", "mamba_d_state", "conv_L_cache")
