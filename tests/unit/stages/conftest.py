"""A tiny language model that speaks the forum's words."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from r2m.models.saving import save_model
from r2m.tasks.forum import forum_tokenizer


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return forum_tokenizer()


@pytest.fixture
def policy(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=24, initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def policy_folder(policy: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> str:
    save_model(tmp_path / "policy", policy, tokenizer)
    return str(tmp_path / "policy")
