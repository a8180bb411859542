"""Models, tokenizers and feedback heads to folders and back."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    Gemma2Config,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from r2m.core.feedback_head import FeedbackHead
from r2m.errors import UserError
from r2m.models.loading import (
    load_config,
    load_feedback_head,
    load_policy,
    load_reward_model,
    load_tokenizer,
    save_feedback_head,
    save_model,
)

Make = Callable[..., PreTrainedModel]
WordTokenizer = Callable[..., PreTrainedTokenizerFast]


def test_policy_comes_back_the_same(
    make_policy: Make, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    policy = make_policy()
    save_model(tmp_path, policy, tokenizer)
    loaded = load_policy(str(tmp_path))
    assert not loaded.training
    for (name, a), b in zip(policy.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert load_policy(str(tmp_path), "bfloat16").dtype == torch.bfloat16
    assert load_tokenizer(str(tmp_path))("a c").input_ids == tokenizer("a c").input_ids
    assert load_config(str(tmp_path)).hidden_size == 16


def test_a_policy_that_caps_its_logits_is_refused(
    make_policy: Make, tokenizer: PreTrainedTokenizerFast, small: dict[str, int], tmp_path: Path
) -> None:
    capped = make_policy(
        Gemma2Config(**small, head_dim=4, num_key_value_heads=2, final_logit_softcapping=1.0)
    )
    torch.nn.init.normal_(capped.get_output_embeddings().weight)  # logits of a trained model's size
    save_model(tmp_path, capped, tokenizer)
    with pytest.raises(UserError, match="not a linear map of its hidden states"):
        load_policy(str(tmp_path))


class TestNothingThere:
    @pytest.mark.parametrize("loader", [load_policy, load_tokenizer, load_reward_model, load_config])
    def test_one_line_that_names_the_field(self, loader: Callable[[str], object], tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"^(policy|reward)\.model = '.*missing': ") as error:
            loader(str(tmp_path / "missing"))
        assert "\n" not in str(error.value)

    def test_reward_model_without_a_score(
        self, make_policy: Make, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
    ) -> None:
        policy = make_policy()
        policy.config.num_labels = 1
        save_model(tmp_path, policy, tokenizer)
        with pytest.raises(UserError, match=r"no weights for score.weight; train one"):
            load_reward_model(str(tmp_path))


class TestPadding:
    """[PAD] differs from EOS wherever the vocabulary has a token to spare."""

    @pytest.mark.parametrize(
        ("special", "pad", "expected"),
        [
            (("[UNK]", "[EOS]", "<pad>"), None, "<pad>"),
            (("[UNK]", "[EOS]", "<pad>"), "[EOS]", "<pad>"),
            (("<extra>", "[EOS]"), "[EOS]", "<extra>"),
            (("[UNK]", "[EOS]", "<pad>"), "[UNK]", "[UNK]"),
            (("[EOS]",), "[EOS]", None),
        ],
    )
    def test_token(
        self,
        word_tokenizer: WordTokenizer,
        special: tuple[str, ...],
        pad: str | None,
        expected: str | None,
        tmp_path: Path,
    ) -> None:
        made = word_tokenizer(*special)
        made.eos_token, made.pad_token = "[EOS]", pad
        made.save_pretrained(tmp_path)
        loaded = load_tokenizer(str(tmp_path))
        assert loaded.pad_token == expected
        assert loaded.eos_token == "[EOS]"

    def test_an_end_token_is_needed(self, word_tokenizer: WordTokenizer, tmp_path: Path) -> None:
        word_tokenizer("[UNK]").save_pretrained(tmp_path)
        with pytest.raises(UserError, match="its tokenizer has no end-of-sequence token"):
            load_tokenizer(str(tmp_path))


class TestRewardModel:
    @pytest.fixture
    def folder(self, tokenizer: PreTrainedTokenizerFast, small: dict[str, int], tmp_path: Path) -> Path:
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(
            LlamaConfig(**small, num_labels=1, pad_token_id=1)
        )
        model.config.reward_mean = 0.25
        save_model(tmp_path, model, tokenizer)
        return tmp_path

    def test_it_is_frozen_and_keeps_its_mean(self, folder: Path) -> None:
        reward, head = load_reward_model(str(folder))
        assert head is None
        assert not reward.training
        assert not any(p.requires_grad for p in reward.parameters())
        assert reward.phi.bias.item() == pytest.approx(-0.25)

    @pytest.mark.parametrize("bias", [True, False])
    def test_a_head_saved_beside_it_comes_back(self, folder: Path, bias: bool) -> None:
        head = FeedbackHead(16, 16, attention_width=8, num_heads=2, score_bias=bias)
        if bias:
            torch.nn.init.constant_(head.score.bias, 0.75)
        save_feedback_head(folder, head)
        _, loaded = load_reward_model(str(folder))
        assert loaded is not None
        batch = torch.randn(3, 16), torch.randn(3, 5, 16), torch.ones(3, 5, dtype=torch.bool)
        assert torch.equal(loaded(*batch, 0.3), head(*batch, 0.3))

    def test_no_head(self, tmp_path: Path) -> None:
        assert load_feedback_head(tmp_path) is None
