"""Sizes that configurations name in many ways: published ones by hand, and what a cache really holds."""

from typing import Any

import pytest
import torch
from transformers import (
    CONFIG_MAPPING,
    BertConfig,
    BloomConfig,
    DynamicCache,
    LlamaConfig,
    MambaConfig,
    MptConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    RobertaConfig,
    WhisperConfig,
    XLNetConfig,
)

from r2m.models.families import context_of, kept_values, width_of
from tests.families import FAMILIES, tiny
from tests.family_tables import REFUSED, RERUN

LONG_ROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}


@pytest.mark.parametrize(
    ("hf_config", "context"),
    [
        (LlamaConfig(max_position_embeddings=8192), 8192),
        (BloomConfig(), None),
        (MambaConfig(), None),
        (XLNetConfig(), None),  # says -1
        (MptConfig(max_seq_len=2048), 2048),
        (WhisperConfig(), 448),  # of its decoder
        (BertConfig(), 512),
        (RobertaConfig(max_position_embeddings=514, pad_token_id=1), 512),  # positions 0 and 1 are no token's
        (CONFIG_MAPPING["gemma3"](text_config={"max_position_embeddings": 131072}), 131072),
        # 131,072 positions, of which those from 4,096 on change what is read of those before
        (
            Phi3Config(
                max_position_embeddings=131072, original_max_position_embeddings=4096, rope_parameters=LONG_ROPE
            ),
            4096,
        ),
    ],
    ids=lambda x: x.model_type if isinstance(x, PreTrainedConfig) else str(x),
)
def test_context(hf_config: PreTrainedConfig, context: int | None) -> None:
    assert context_of(hf_config) == context


@pytest.mark.parametrize(
    ("hf_config", "width"),
    [
        (OPTConfig(hidden_size=1024, word_embed_proj_dim=512), 512),  # OPT-350m
        (OPTConfig(hidden_size=2048), 2048),
        (CONFIG_MAPPING["gemma3"](text_config={"hidden_size": 2560}), 2560),
        (MptConfig(d_model=4096), 4096),
    ],
    ids=["opt-350m", "opt", "gemma3", "mpt"],
)
def test_width(hf_config: PreTrainedConfig, width: int) -> None:
    assert width_of(hf_config) == width


LLAMA_8B = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "sizes", "kept"),
    [
        ("llama", LLAMA_8B, (2 * 32 * 8 * 128, 0)),
        ("falcon", {"hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71}, (2 * 32 * 64, 0)),
        # DeepSeek-V3 keeps 512 latent and 64 rotary values of a token in each layer, whatever its 128 heads
        ("deepseek_v3", {"num_hidden_layers": 61}, (61 * (512 + 64), 0)),
        # Gemma 4: in each group of six layers five of 4 heads of 256, and one of heads of 512
        ("gemma4_text", {}, (2 * 4 * (25 * 256 + 5 * 512), 0)),
        # Mamba-130m: 24 layers, 1,536 channels with a state of 16 each, and no keys
        ("mamba", {"hidden_size": 768, "num_hidden_layers": 24}, (0, 24 * 1536 * 16)),
        # Qwen3-Next: one layer in four attends, the others have 32 heads of 128 by 128
        ("qwen3_next", {}, (12 * 2 * 2 * 256, 36 * 32 * 128 * 128)),
    ],
)  # fmt: skip
def test_kept_by_hand(family: str, sizes: dict[str, Any], kept: tuple[int, int]) -> None:
    assert kept_values(CONFIG_MAPPING[family](**sizes)) == kept


# Some heads of theirs have other widths, or they keep keys of an index beside the others.
MORE_KEPT = frozenset({"axk2", "deepseek_v32", "glm_moe_dsa", "hy_v4", "mimo_v2_flash"})


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in {*REFUSED, *RERUN}])
def test_kept_is_what_a_cache_grows_by(family: str) -> None:
    model = tiny(family)
    held = [_cached(model, tokens) for tokens in (4, 6)]
    grown, kept = (held[1] - held[0]) / 2, kept_values(model.config)[0]
    assert grown == kept or (family in MORE_KEPT and kept < grown <= 1.5 * kept)


def _cached(model: Any, tokens: int) -> int:
    """Keys and values in a cache after so many tokens."""
    base = model.model if model.base_model is model else model.base_model
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        base(input_ids=torch.full((1, tokens), 5), past_key_values=cache, use_cache=True)
    return sum(
        x.numel()
        for layer in cache.layers
        for x in vars(layer).values()
        if isinstance(x, torch.Tensor) and x.dim() > 1
    )
