"""What transformers loads and does not save: repaired at load, or found out before anything is trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from r2m.errors import UserError
from r2m.models.loading import load_tokenizer
from r2m.models.saving import check_savable, save_model, save_weights
from r2m.policy.loading import load_policy
from r2m.reward.loading import load_reward_model

Make = Callable[..., PreTrainedModel]


def edit(folder: Path, file: str, **settings: Any) -> None:
    path = folder / file
    tree = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(tree | settings))


@pytest.fixture
def folder(make_policy: Make, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    save_model(tmp_path / "model", make_policy(), tokenizer)
    return tmp_path / "model"


def saved(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, to: Path) -> dict[str, Any]:
    """The settings of generation that a policy is saved with, after a trial that leaves nothing."""
    to.mkdir()
    check_savable(policy, tokenizer, to, "policy.model")
    assert list(to.iterdir()) == []
    save_model(to, policy, tokenizer)
    AutoModelForCausalLM.from_pretrained(to)
    return GenerationConfig.from_pretrained(to).to_diff_dict()


@pytest.mark.parametrize(
    ("found", "kept"),
    [  # as published: Llama 3.1's, Qwen 2.5's, those of models that were tuned to sample
        ({"temperature": 0.6, "top_p": 0.9}, {"temperature": 0.6, "top_p": 0.9, "do_sample": True}),
        ({"temperature": 0.7, "top_k": 20, "do_sample": False},
         {"temperature": 0.7, "top_k": 20, "do_sample": True}),
        ({"top_p": 0.5, "num_beams": 2, "length_penalty": 0.5},
         {"top_p": 0.5, "num_beams": 2, "length_penalty": 0.5, "do_sample": True}),
        # Not to be had by do_sample: what is at fault goes, and nothing else
        ({"length_penalty": 0.6, "early_stopping": True, "max_new_tokens": 7}, {"max_new_tokens": 7}),
        ({"temperature": 0.6, "output_scores": True}, {"temperature": 0.6, "do_sample": True}),
        ({"pad_token_id": -1, "repetition_penalty": 1.5}, {"repetition_penalty": 1.5}),
        # Sound: as it was
        ({"do_sample": True, "temperature": 0.6}, {"do_sample": True, "temperature": 0.6}),
        ({"max_new_tokens": 9}, {"max_new_tokens": 9}),
    ],
)  # fmt: skip
def test_settings_of_generation_that_do_not_validate(
    folder: Path, tmp_path: Path, found: dict[str, Any], kept: dict[str, Any]
) -> None:
    edit(folder, "generation_config.json", eos_token_id=[2, 3], **found)
    policy = load_policy(str(folder))
    settings = saved(policy, load_tokenizer(str(folder)), tmp_path / "out")
    assert settings.pop("eos_token_id") == [2, 3]
    own = ("bos_token_id", "pad_token_id", "transformers_version", "_from_model_config")
    defaults = GenerationConfig().to_diff_dict()
    said = {k: v for k, v in settings.items() if k not in own and v not in (None, False) and k not in defaults}
    said.pop("use_cache", None)
    assert said == kept


@pytest.mark.parametrize("settings", [{"temperature": 0.6}, {"max_length": 20, "num_beams": 4, "top_k": 3}])
def test_settings_of_generation_in_the_models_own_config(
    folder: Path, tokenizer: PreTrainedTokenizerFast, small: dict[str, int], tmp_path: Path,
    settings: dict[str, Any],
) -> None:  # fmt: skip
    edit(folder, "config.json", **settings)
    saved(load_policy(str(folder)), tokenizer, tmp_path / "out")

    hf_config = LlamaConfig(**small, num_labels=1, pad_token_id=1)
    save_model(tmp_path / "reward", AutoModelForSequenceClassification.from_config(hf_config), tokenizer)
    edit(tmp_path / "reward", "config.json", **settings)
    reward, _ = load_reward_model(str(tmp_path / "reward"))
    check_savable(reward.model, tokenizer, tmp_path, "reward.model")
    save_model(tmp_path / "again", reward.model, tokenizer)
    load_reward_model(str(tmp_path / "again"))


def test_tied_weights_no_padding_and_a_chat_template(
    small: dict[str, int], word_tokenizer: Callable[..., PreTrainedTokenizerFast], tmp_path: Path
) -> None:
    tokenizer = word_tokenizer("[UNK]", "[EOS]")
    tokenizer.eos_token = "[EOS]"
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    policy = AutoModelForCausalLM.from_config(LlamaConfig(**small, tie_word_embeddings=True))
    save_model(tmp_path / "model", policy, tokenizer)
    policy, tokenizer = load_policy(str(tmp_path / "model")), load_tokenizer(str(tmp_path / "model"))
    saved(policy, tokenizer, tmp_path / "out")
    again = load_policy(str(tmp_path / "out"))
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight
    assert torch.equal(again.get_input_embeddings().weight, policy.get_input_embeddings().weight)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == tokenizer.chat_template


def test_what_cannot_be_saved_is_one_line(
    make_policy: Make, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    policy = make_policy()
    policy.config.unspeakable = object()  # json has no words for it
    with pytest.raises(UserError, match=r"^policy.model = 'x': it could not be saved after the training \("):
        check_savable(policy, tokenizer, tmp_path, "policy.model = 'x'")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_shared_and_not_known_as_such(
    make_policy: Make, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    policy = make_policy()
    first, second = policy.model.layers
    second.mlp.up_proj.weight = torch.nn.Parameter(first.mlp.gate_proj.weight.data[: 32 // 2].view(32, -1))
    with pytest.raises(UserError, match=r"it could not be saved after the training \(The weights .*shared"):
        check_savable(policy, tokenizer, tmp_path, "policy.model = 'x'")
    with pytest.raises(RuntimeError, match="shared"):
        save_model(tmp_path / "whole", policy, tokenizer)


def test_a_disk_at_fault_is_not_the_models(
    make_policy: Make, tokenizer: PreTrainedTokenizerFast, read_only: Any
) -> None:
    disk, freeze = read_only
    freeze()
    with pytest.raises(OSError, match="Read-only file system"):
        check_savable(make_policy(), tokenizer, disk, "policy.model = 'x'")


def test_bare_weights_are_each_there_once(small: dict[str, int], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    policy = AutoModelForCausalLM.from_config(LlamaConfig(**small, tie_word_embeddings=True))
    stored = load_file(save_weights(tmp_path, policy))
    assert stored.keys() == dict(policy.named_parameters()).keys()
    assert all(torch.equal(stored[name], p) for name, p in policy.named_parameters())
