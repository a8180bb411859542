"""A reward model whose checkpoint has more than its class has a place for."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, LlamaConfig, PreTrainedTokenizerFast

from r2m.core.masking import pad
from r2m.errors import UserError
from r2m.models.saving import save_model
from r2m.reward.loading import load_reward_model


@pytest.fixture
def folder(tokenizer: PreTrainedTokenizerFast, small: dict[str, int], tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(LlamaConfig(**small, num_labels=1, pad_token_id=1))
    save_model(tmp_path, model, tokenizer)
    return tmp_path


def add(folder: Path, **tensors: torch.Tensor) -> None:
    stored = load_file(folder / "model.safetensors")
    named = {key.replace("__", "."): value for key, value in tensors.items()}
    save_file(stored | named, folder / "model.safetensors", metadata={"format": "pt"})


def scores(folder: Path) -> torch.Tensor:
    reward, _ = load_reward_model(str(folder))
    with torch.no_grad():
        return reward(*pad([[4, 5, 6], [7]], 0, "right"))


@pytest.mark.parametrize("shape", [(1,), ()])
def test_a_bias_of_the_score_is_in_the_scores_and_saved_again(
    folder: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    before = scores(folder)
    add(folder, score__bias=torch.full(shape, 3.0))
    torch.testing.assert_close(scores(folder), before + 3)
    reward, _ = load_reward_model(str(folder))
    assert not any(p.requires_grad for p in reward.parameters())
    save_model(tmp_path / "again", reward.model, tokenizer)
    torch.testing.assert_close(scores(tmp_path / "again"), before + 3)


def test_a_bias_in_one_of_several_files(folder: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    before = scores(folder)
    add(folder, score__bias=torch.tensor([3.0]))
    reward, _ = load_reward_model(str(folder))
    reward.model.save_pretrained(tmp_path / "split", max_shard_size="5KB")
    tokenizer.save_pretrained(tmp_path / "split")
    assert (tmp_path / "split" / "model.safetensors.index.json").is_file()
    torch.testing.assert_close(scores(tmp_path / "split"), before + 3)


@pytest.mark.parametrize(
    "name", ["v_head.weight", "regression_layer.weight", "score.0.weight", "score.dense.bias", "value_head.bias"]
)
def test_a_head_that_nobody_knows_is_refused(folder: Path, name: str) -> None:
    add(folder, **{name.replace(".", "__"): torch.zeros(1, 16)})
    with pytest.raises(UserError, match=f"^reward.model = .*its checkpoint has {name}, which Llama") as refused:
        load_reward_model(str(folder))
    assert "\n" not in str(refused.value)


def test_what_a_language_model_leaves_behind_is_none(folder: Path) -> None:
    before = scores(folder)
    left = ("lm_head__weight", "model__layers__0__self_attn__rotary_emb__inv_freq", "mtp__fc__weight")
    add(folder, **{name: torch.zeros(12, 16) for name in left})
    torch.testing.assert_close(scores(folder), before)
