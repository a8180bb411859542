"""Reward token embeddings and scores against the classifiers' own logits. Axes: B sequences, T tokens, D width."""

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from r2m.core.masking import pad
from r2m.errors import UserError
from r2m.reward.model import RewardModel

SMALL = {
    "vocab_size": 12, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
SEQUENCES = [[3, 4, 5, 6], [7, 2], [8, 9, 10, 11, 3, 2]]  # no padding id inside


def classifier(hf_config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(hf_config).eval()


@pytest.mark.parametrize(
    "hf_config",
    [
        LlamaConfig(**SMALL, num_labels=1),
        GPTNeoXConfig(**SMALL, num_labels=1),
        GPT2Config(vocab_size=12, n_embd=16, n_layer=2, n_head=4, n_positions=64, pad_token_id=0, num_labels=1),
        BertConfig(**SMALL, num_labels=1),  # its classifier has a bias and sees a pooled token
    ],
    ids=["llama", "neox", "gpt2", "bert"],
)
@pytest.mark.parametrize("width", [6, 9])
def test_scores_are_the_classifiers_own(hf_config: PreTrainedConfig, width: int) -> None:
    model = classifier(hf_config)
    reward = RewardModel(model)
    ids_BT, mask_BT = (x[: len(SEQUENCES)] for x in pad([*SEQUENCES, [0] * (width or 0)], 0, "right"))
    with torch.no_grad():
        own = model(input_ids=ids_BT, attention_mask=mask_BT.long()).logits.squeeze(-1)
        torch.testing.assert_close(reward(ids_BT, mask_BT), own, atol=1e-5, rtol=1e-5)
        H_BD = reward.embed(ids_BT, mask_BT)
        assert H_BD.shape == (3, reward.width) == (3, 16)
        torch.testing.assert_close(reward.phi(H_BD).squeeze(-1), own, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padding", [0, 2, None])
def test_an_end_that_is_the_padding_too_is_read_where_the_model_was_trained(padding: int | None) -> None:
    """A trainer that pads with the end token (2) trains a model at the token before it; another one at the end."""
    model = classifier(LlamaConfig(**SMALL | {"pad_token_id": padding}, num_labels=1))
    reward = RewardModel(model)
    sequences = [[3, 4, 2], [3, 4, 5, 6, 7, 2], [9, 8]]  # the last one was cut off
    with torch.no_grad():
        own = torch.cat([model(input_ids=torch.tensor([ids])).logits[0] for ids in sequences])
        for filler in (0, 2):
            torch.testing.assert_close(reward(*pad(sequences, filler, "right")), own, atol=1e-5, rtol=1e-5)
        at_the_end = torch.allclose(reward(*pad([[3, 4]], 0, "right")), own[:1], atol=1e-3)
    assert at_the_end == (padding == 2)
    assert model.config.pad_token_id == padding  # as it will be saved


def test_the_mean_reward_is_folded_into_the_bias() -> None:
    plain, shifted = (classifier(LlamaConfig(**SMALL, num_labels=1)) for _ in range(2))
    shifted.config.reward_mean = 1.5
    batch = pad(SEQUENCES, 0, "right")
    with torch.no_grad():
        torch.testing.assert_close(RewardModel(shifted)(*batch), RewardModel(plain)(*batch) - 1.5)


def test_embeddings_are_fp32_of_a_bfloat16_backbone() -> None:
    reward = RewardModel(classifier(LlamaConfig(**SMALL, num_labels=1)).bfloat16())
    with torch.no_grad():
        assert reward.embed(*pad(SEQUENCES, 0, "right")).dtype == torch.float32
    assert reward.phi.weight.dtype == torch.float32


def test_one_label() -> None:
    with pytest.raises(UserError, match="it has 2 labels; a reward model has 1"):
        RewardModel(classifier(LlamaConfig(**SMALL, num_labels=2)))
