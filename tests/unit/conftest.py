"""Small random models, a word-level tokenizer, and made runs."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from made_paper import MadePaper
from made_runs import MadeRuns
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast


@pytest.fixture
def small() -> dict[str, int]:
    """Dimensions that every config here takes."""
    return {
        "vocab_size": 12, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 64,
    }  # fmt: skip


@pytest.fixture
def word_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """Makes tokenizers that split at white space; the special tokens come first in the vocabulary."""

    def make(*special: str, words: Sequence[str] = "abcdefgh") -> PreTrainedTokenizerFast:
        vocabulary = {word: i for i, word in enumerate([*special, *words])}
        backend = Tokenizer(models.WordLevel(vocabulary, unk_token=special[0]))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=special[0])
        tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
        return tokenizer

    return make


@pytest.fixture
def tokenizer(word_tokenizer: Callable[..., PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    made = word_tokenizer("[UNK]", "[PAD]", "[EOS]", "[BOS]")
    made.pad_token, made.eos_token = "[PAD]", "[EOS]"
    return made


@pytest.fixture
def make_policy(small: dict[str, int]) -> Callable[..., PreTrainedModel]:
    """Makes a policy of a config; a Llama with grouped queries by default."""

    def make(hf_config: PreTrainedConfig | None = None) -> PreTrainedModel:
        torch.manual_seed(0)
        hf_config = hf_config or LlamaConfig(**small, num_key_value_heads=2)
        return AutoModelForCausalLM.from_config(hf_config).eval()

    return make


@pytest.fixture
def runs(tmp_path: Path) -> MadeRuns:
    return MadeRuns(tmp_path / "storage")


@pytest.fixture
def made(tmp_path: Path) -> MadePaper:
    return MadePaper(tmp_path)
