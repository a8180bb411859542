"""A zoo of tiny random models: one of every family of causal language models, and of sequence classifiers with one
label, that transformers ships.

`tiny(name)` is a model of a few thousand parameters with that family's own code: two layers, or one of each kind
that the family mixes. Every parameter gets noise, so that no row of an embedding is zero (the padding token's is,
in a fresh model), no norm is the identity and no bias is zero: a test that passes then has seen them.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

TOKENS, VOCABULARY = 90, 96  # ids that a token has, and rows of the embedding
WIDTH, HEADS, CONTEXT = 32, 4, 64
PAD, BOS, EOS = 0, 1, 2
NOISE = 0.15

LAYERS = (
    "num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers", "num_blocks",
    "num_encoder_layers", "num_decoder_layers",
)  # fmt: skip

# What a size is called, and its tiny value. Only sizes that a family's config has and does not leave empty are set.
SMALL: dict[str, float] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "decoder_vocab_size"), VOCABULARY),
    **dict.fromkeys(
        ("hidden_size", "n_embd", "d_model", "dim_model", "emb_dim", "embedding_dim", "attention_hidden_size",
         "word_embed_proj_dim", "embedding_size", "input_embedding_size", "output_embedding_size", "lru_width",
         "backbone_hidden_size", "mamba_d_ssm"),
        WIDTH,
    ),
    **dict.fromkeys(
        ("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "ffn_hidden_size", "dff", "n_inner",
         "dim_ff", "d_inner", "intermediate_size_mlp", "dense_intermediate_size", "feed_forward_size"),
        2 * WIDTH,
    ),
    **dict.fromkeys(
        ("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size",
         "expert_ffn_hidden_size", "moe_shared_expert_intermediate_size"),
        WIDTH // 2,
    ),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads",
         "encoder_attention_heads", "attention_heads", "num_encoder_attention_heads",
         "num_decoder_attention_heads", "swa_num_attention_heads", "linear_num_value_heads", "linear_num_heads",
         "mamba_n_heads", "mamba_num_heads", "index_n_heads"),
        HEADS,
    ),
    **dict.fromkeys(
        ("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads", "linear_num_key_heads",
         "num_query_groups"),
        HEADS // 2,
    ),
    **dict.fromkeys(
        ("head_dim", "swa_head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "linear_key_head_dim",
         "linear_value_head_dim", "linear_head_dim", "kv_channels", "attention_head_dim", "d_head", "dim_head",
         "index_head_dim", "mamba_head_dim", "attention_head_size", "global_head_dim"),
        WIDTH // HEADS,
    ),
    **dict.fromkeys(("mamba_d_head", "mamba_headdim"), 2 * WIDTH // HEADS),
    **dict.fromkeys(
        ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4
    ),
    **dict.fromkeys(
        ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "topk_group", "n_group",
         "num_shared_experts", "n_shared_experts", "moe_num_shared_experts", "zero_expert_num"),
        2,
    ),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "o_lora_rank", "gated_norm_rank", "adapter_rank"), 16),
    **dict.fromkeys(("state_size", "ssm_state_size", "mamba_d_state"), 8),
    **dict.fromkeys(("chunk_size", "mamba_chunk_size"), 4),
    **dict.fromkeys(("time_step_rank", "mamba_dt_rank"), 4),
    **dict.fromkeys(("n_groups", "mamba_n_groups", "mamba_ngroups"), 1),
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length", "model_max_length",
         "max_target_positions"),
        CONTEXT,
    ),
    **dict.fromkeys(("sliding_window", "sliding_window_size", "window_size", "local_attention",
                     "attention_window_size", "attention_chunk_size"), 8),
    **dict.fromkeys(("rotary_dim",), 4),
    **dict.fromkeys(("image_size",), 8),
    **dict.fromkeys(("patch_size",), 4),
    # What changes the logits after the output embeddings, so strong that it shows.
    **dict.fromkeys(
        ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap", "logits_scaling",
         "logits_mup_width_multiplier"),
        2.0,
    ),
    "logit_scale": 0.25,
}  # fmt: skip


def tiny_config(family: str, **options: Any) -> PreTrainedConfig:
    """The family's configuration with small sizes; KeyError for a family that `LEFT_OUT` names."""
    config_class = CONFIG_MAPPING[family]
    sizes = _small(config_class().to_dict())
    return config_class(**sizes | SPECIAL.get(family, {}) | options)


def _small(sizes: dict[str, Any]) -> dict[str, Any]:
    """The entries of a configuration that differ in a tiny one, those of its parts included."""
    small: dict[str, Any] = {"is_decoder": True} if "is_decoder" in sizes else {}
    if "qk_rope_head_dim" in sizes:  # latent attention: keys and values of all heads
        sizes = sizes | {"num_key_value_heads": None}
        small["num_key_value_heads"] = HEADS
    layers = next((sizes[name] for name in LAYERS if sizes.get(name)), 0)
    lists = {
        name: value
        for name, value in sizes.items()
        if isinstance(value, list) and layers == len(value) > len(set(map(str, value)))
    }
    kinds = {name: list(dict.fromkeys(map(str, value))) for name, value in lists.items()}
    depth = max([2, *map(len, kinds.values())])
    for name, value in sizes.items():
        if name in LAYERS and value:
            small[name] = depth
        elif name in lists:
            distinct = [next(v for v in value if str(v) == kind) for kind in kinds[name]]
            small[name] = [distinct[i % len(distinct)] for i in range(depth)]
        elif name in SMALL and value and not isinstance(value, (list, dict)):
            small[name] = SMALL[name]
        elif (name.endswith("_config") or name in ("encoder", "decoder")) and isinstance(value, dict):
            small[name] = value | _small(value) | SPECIAL.get(value.get("model_type"), {})
        elif name.endswith(("_token_id", "_token_index")) and isinstance(value, int | list):
            small[name] = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}.get(name, 3)
    return small


# What the names above do not say, or say wrong. None takes an entry out: the class's own default.
SPECIAL: dict[str, dict[str, Any]] = {
    "blt": {
        part: {
            "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 64,
            "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "hidden_size_global": 32, "cross_attn_k": 1,
        }
        for part in ("patcher_config", "encoder_config", "decoder_config", "global_config")
    }
    | {"encoder_hash_byte_group_vocab": 64, "encoder_hash_byte_group_size": [3], "cross_attn_k": 1},
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {
        "layer_types": ["full_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": None,
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
        },
    },
    "dbrx": {
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
    },
    "deepseek_v2": {"n_group": None, "topk_group": None, "topk_method": "greedy", "num_experts_per_tok": 2},
    "dots1": {"n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "falcon_h1": {"mamba_d_head": 8},
    "gemma3n_text": {
        "num_hidden_layers": 4, "num_kv_shared_layers": 2, "intermediate_size": [64] * 4, "laurel_rank": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
        "hidden_size_per_layer_input": 8, "altup_num_inputs": 2,
    },
    "gemma4_text": {"per_layer_config": {1: {"head_dim": 16}}, "hidden_size_per_layer_input": 8},
    "gemma4_unified_text": {"per_layer_config": {1: {"head_dim": 16}}},
    "got_ocr2": {"vision_config": {"hidden_size": 32, "output_channels": 32, "num_hidden_layers": 1,
        "num_attention_heads": 4, "image_size": 64, "patch_size": 16, "window_size": 2, "mlp_dim": 64}},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"num_expert_group": 1, "topk_group": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"], "full_attn_idxs": [1], "num_hidden_layers": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "ministral": {"head_dim": 8},
    "mamba2": {"head_dim": 16},
    "nemotron": {"num_key_value_heads": 2},
    "qwen4_exp_text": {
        "indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8,
        "indexer_compress_ratio": 2, "hc_lowrank": 8, "ngram_vocab_size_base": 64, "ple_embed_dim": 16,
    },
    "roc_bert": {
        "pronunciation_vocab_size": VOCABULARY, "pronunciation_embed_dim": 8,
        "shape_vocab_size": VOCABULARY, "shape_embed_dim": 8,
    },
    "reformer": {
        "axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16], "attn_layers": ["local", "lsh"],
        "local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4, "num_buckets": 4,
    },
    # Sequence classifiers alone.
    "distilbert": {"dim": 32, "hidden_dim": 64},
    "esm": {"vocab_size": VOCABULARY, "pad_token_id": PAD},
    "esmc": {"num_key_value_heads": 4},
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 8},
    "mistral4": {
        "num_key_value_heads": 4, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16, "head_dim": 16,
    },
    "mobilebert": {"true_hidden_size": 32, "intra_bottleneck_size": 32},
    "t5": {"d_kv": 8, "d_ff": 64, "decoder_start_token_id": PAD},
    "mt5": {"d_kv": 8, "d_ff": 64, "decoder_start_token_id": PAD},
    "umt5": {"d_kv": 8, "d_ff": 64, "decoder_start_token_id": PAD},
    "xlstm": {"hidden_size": 64, "embedding_dim": 64, "qk_dim_factor": 1.0, "chunk_size": 8},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"], "num_hidden_layers": 3,
        "attention_hidden_size": 64, "attention_head_dim": 16,
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"], "num_hidden_layers": 3, "n_mamba_heads": 4,
        "attention_hidden_size": 64, "attention_head_dim": 16, "mamba_headdim": 16,
    },
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
}  # fmt: skip

# Families that have no place in a zoo of causal language models of text, and why.
LEFT_OUT: dict[str, str] = {
    "gemma3n": "its vision tower needs the package timm; its text model is in the zoo as gemma3n_text",
    "gemma4_assistant": "a drafter: it reads another model's hidden states and keys",
    "gemma4_unified_assistant": "a drafter: it reads another model's hidden states and keys",
    "musicgen": "makes audio tokens of several codebooks out of a text encoder's states",
    "musicgen_melody": "makes audio tokens of several codebooks out of a text encoder's states",
}

FAMILIES = tuple(family for family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if family not in LEFT_OUT)

LONG_ROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0, 2.0, 2.0, 1.0],
}  # fmt: skip

# Published models whose settings take other paths through their family's code than its defaults do.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert, as published": ("bert", {"is_decoder": False}),
    "falcon, ALiBi": ("falcon", {"alibi": True}),
    "falcon, 40B's architecture": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "gemma3_text, both directions": ("gemma3_text", {"use_bidirectional_attention": True}),
    "gpt_neox, one after the other": ("gpt_neox", {"use_parallel_residual": False}),
    "llama, dynamic NTK": ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}),
    "llama, dynamic NTK, beyond": (
        "llama",
        {
            "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
            "max_position_embeddings": 12,
        },
    ),
    "llama, YaRN": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1e4,
            }
        },
    ),
    "mpt, learned positions": ("mpt", {"attn_config": {"alibi": False}}),
    "opt, 350m": ("opt", {"word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "phi3, long rope": ("phi3", {"original_max_position_embeddings": 32, "rope_parameters": LONG_ROPE}),
    "phi3, long rope, beyond": ("phi3", {"original_max_position_embeddings": 12, "rope_parameters": LONG_ROPE}),
    "qwen2, sliding window": (
        "qwen2", {"use_sliding_window": True, "sliding_window": 8, "layer_types": ["sliding_attention"] * 2},
    ),
}  # fmt: skip


def tiny(name: str, seed: int = 0) -> PreTrainedModel:
    """The model of a family or variant, its weights a function of the seed, in fp32 and eval mode."""
    family, options = VARIANTS.get(name, (name, {}))
    return _noisy(AutoModelForCausalLM, tiny_config(family, **options), seed)


def tiny_classifier(family: str, seed: int = 0) -> PreTrainedModel:
    """A sequence classifier of one label, as `tiny`; encoders are encoders here."""
    config = tiny_config(family, num_labels=1, pad_token_id=PAD)
    if getattr(config, "is_decoder", False):
        config.is_decoder = False
    return _noisy(AutoModelForSequenceClassification, config, seed)


def tokenizer() -> PreTrainedTokenizerFast:
    """Words "w0" to "w89", split at spaces."""
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(TOKENS)}, unk_token=None))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", bos_token="w1", eos_token="w2")


def _noisy(auto_class: Any, config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto_class.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    parameter.add_(NOISE * torch.randn_like(parameter))
    return model.eval()


NO_CLASSIFIER: dict[str, str] = {
    **dict.fromkeys(("layoutlm", "layoutlmv2", "layoutlmv3", "lilt"), "reads where words stand on a page"),
    "markuplm": "reads where words stand in a page of HTML",
    "tapas": "reads where words stand in a table",
    **dict.fromkeys(("canine", "perceiver"), "reads characters or bytes, and has no vocabulary"),
}

CLASSIFIERS = tuple(f for f in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES if f not in NO_CLASSIFIER)
