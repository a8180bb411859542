"""The forum with policies that vLLM's CPU kernels take: with heads of 32."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from engine_here import HOLES
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForSequenceClassification,
    Qwen2Config,
)

from r2m.config import Config, load
from r2m.models.saving import save_model
from r2m.tasks.forum import forum_tokenizer

FAMILIES = {"llama": LlamaConfig, "qwen2": Qwen2Config}

SETTINGS = (
    "task.posts=40", "task.held_out=4", "algorithm.queries=4", "algorithm.microbatch=8", "algorithm.rounds=4",
    "algorithm.max_response_tokens=8", "algorithm.temperature=0.8", "algorithm.lr=1e-3", "algorithm.adam_eps=1e-4",
    "reward.lr=1e-3", "reward.attention_width=16", "reward.num_heads=2", "run.device=cpu", "run.eval_every=2",
    "rollout.engine=vllm", "reward.no_eos=keep",  # few responses end: all would have one score
)  # fmt: skip


@pytest.fixture(scope="session")
def make_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[str, str]]:
    """Folders of a policy and a reward model."""

    def make(family: str, tied: bool) -> tuple[str, str]:
        tokenizer = forum_tokenizer()
        special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
        shared_by = {
            "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64, "bos_token_id": None,
            "initializer_range": 0.2, **special,
        }  # fmt: skip
        torch.manual_seed(0)
        policy = AutoModelForCausalLM.from_config(
            FAMILIES[family](
                hidden_size=64, intermediate_size=128, num_key_value_heads=1, tie_word_embeddings=tied,
                vocab_size=len(tokenizer) + HOLES, **shared_by,
            )
        )  # fmt: skip
        # Settings that nothing may take over.
        policy.generation_config = GenerationConfig(do_sample=True, top_k=2, repetition_penalty=3.0, **special)
        reward = LlamaForSequenceClassification(
            LlamaConfig(hidden_size=16, intermediate_size=32, num_labels=1, vocab_size=len(tokenizer), **shared_by)
        )
        reward.config.reward_mean = 0.1
        folders = tmp_path_factory.mktemp("policy"), tmp_path_factory.mktemp("reward")
        for folder, model in zip(folders, (policy, reward), strict=True):
            save_model(folder, model, tokenizer)
        return str(folders[0]), str(folders[1])

    return make


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., Config]:
    def make(models: tuple[str, str], *overrides: str) -> Config:
        own = (f"policy.model={models[0]}", f"reward.model={models[1]}", f"run.storage={tmp_path / 'storage'}")
        return load("forum", [*own, *SETTINGS, *overrides])

    return make
