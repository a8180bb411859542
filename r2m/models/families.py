"""How a family of causal language models can be run, told from its configuration: no weights are read.

`loading.load_policy` checks each model against a plain forward before it trusts what is said here.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import LinearAttentionCacheLayerMixin


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
REFUSED_POLICIES = {
    "cpmant": "it reads a prompt in both directions",
    "prophetnet": "it predicts several tokens at once, from hidden states of their own",
    "reformer": "its attention depends on the length of the whole sequence",
    "xlm": "it reads a sequence in both directions",
    "xlnet": "it reads a sequence in both directions",
}


def policy_refusal(config: Any) -> str | None:
    """Why no policy can be made of such a model; None where one can."""
    if config.model_type in REFUSED_POLICIES:
        return REFUSED_POLICIES[config.model_type]
    if config.model_type in ENCODERS and not config.is_decoder:
        return "it reads a sequence in both directions (is_decoder is false in its config.json)"
    # Not "vision".
    if getattr(config.get_text_config(decoder=True), "use_bidirectional_attention", None) is True:
        return "it reads a sequence in both directions (use_bidirectional_attention is true in its config.json)"
    return None


def cache_use_of(config: Any) -> CacheUse:
    """The fastest that is right for models of this configuration."""
    if config.model_type in NO_CACHE:
        return CacheUse.RERUN
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
