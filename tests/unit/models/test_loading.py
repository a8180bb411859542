"""Models, tokenizers and feedback heads to folders and back."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BartConfig,
    BertConfig,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    XLNetConfig,
)

from r2m.core.feedback_head import FeedbackHead
from r2m.errors import UserError
from r2m.models import families
from r2m.models.families import CacheUse, cache_use_of, context_of
from r2m.models.loading import load_config, load_tokenizer
from r2m.models.saving import save_model
from r2m.policy import check
from r2m.policy.loading import frozen_twin, load_policy
from r2m.policy.output import cache_use, padding_id, unused_ids
from r2m.reward.loading import load_feedback_head, load_reward_model, save_feedback_head

Make = Callable[..., PreTrainedModel]
BOTH_WAYS = {"head_dim": 4, "num_key_value_heads": 2, "use_bidirectional_attention": True}
WordTokenizer = Callable[..., PreTrainedTokenizerFast]


def test_policy_comes_back_the_same(make_policy: Make, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    policy = make_policy()
    save_model(tmp_path, policy, tokenizer)
    loaded = load_policy(str(tmp_path))
    assert not loaded.training
    for (name, a), b in zip(policy.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert load_policy(str(tmp_path), "bfloat16").dtype == torch.bfloat16
    assert load_tokenizer(str(tmp_path))("a c").input_ids == tokenizer("a c").input_ids
    assert load_config(str(tmp_path)).hidden_size == 16


class TestWay:
    """A policy is compared with a plain forward when it is loaded, and refused where they differ."""

    @pytest.fixture
    def saved(self, make_policy: Make, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Callable[..., str]:
        """Saves a policy of a config, with its embeddings' noise, and the tokenizer; the folder."""

        def save(hf_config: PreTrainedConfig | None = None) -> str:
            model = make_policy(hf_config)
            torch.nn.init.normal_(model.get_output_embeddings().weight)  # logits of a trained model's size
            save_model(tmp_path, model, tokenizer)
            return str(tmp_path)

        return save

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_a_policy_that_caps_its_logits(
        self, saved: Callable[..., str], small: dict[str, int], dtype: str
    ) -> None:
        capped = Gemma2Config(**small, head_dim=4, num_key_value_heads=2, final_logit_softcapping=1.0)
        assert cache_use(load_policy(saved(capped), dtype)) is CacheUse.SHARED

    def test_a_family_that_the_table_does_not_know(
        self, saved: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """BART counts positions with the padding: not shared, then, whatever is thought of its family."""
        folder = saved(
            BartConfig(
                vocab_size=12, d_model=16, decoder_layers=2, decoder_ffn_dim=32, decoder_attention_heads=4,
                init_std=0.5,
            )
        )  # fmt: skip
        monkeypatch.setattr(families, "OWN_POSITIONS", frozenset())
        with pytest.warns(
            UserWarning, match="keeps the model's own state, slower than planned; else log-probs differ"
        ):
            policy = load_policy(folder)
        assert cache_use_of(policy.config) is CacheUse.SHARED
        assert cache_use(policy) is CacheUse.CACHED
        assert cache_use(frozen_twin(policy)) is CacheUse.CACHED

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_long_rope_within_reach(self, saved: Callable[..., str], small: dict[str, int], dtype: str) -> None:
        """Sequences of one batch on both sides of the length at which the long factors begin."""
        short = Phi3Config(
            **small, pad_token_id=0, initializer_range=0.5, original_max_position_embeddings=14,
            rope_parameters={
                "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 2, "long_factor": [64.0] * 2,
            },
        )  # fmt: skip
        with pytest.raises(UserError, match=r"^policy.model = .*: log-probs differ by [0-9.]+, ") as error:
            load_policy(saved(short), dtype)
        assert "\n" not in str(error.value)

    def test_attention_in_both_directions(self, make_policy: Make, small: dict[str, int]) -> None:
        model = make_policy(Gemma3TextConfig(**small, **BOTH_WAYS, initializer_range=0.5))
        with pytest.raises(UserError, match=r"^x: .* what it gives for one sequence: log-probs differ by"):
            check.settle_cache_use(model, "x")

    @pytest.mark.parametrize(
        ("hf_config", "why"),
        [
            (XLNetConfig(vocab_size=12, d_model=16, n_layer=1, n_head=4, d_inner=32), "in both directions"),
            (BertConfig(vocab_size=12, hidden_size=16, num_hidden_layers=1, num_attention_heads=4,
                        intermediate_size=32), r"\(is_decoder is false"),
            (Gemma3TextConfig(vocab_size=12, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                              num_attention_heads=4, **BOTH_WAYS), r"\(use_bidirectional_attention is true"),
        ],
        ids=["xlnet", "bert", "gemma3"],
    )  # fmt: skip
    def test_families_that_are_no_policies(
        self, saved: Callable[..., str], hf_config: PreTrainedConfig, why: str
    ) -> None:
        with pytest.raises(UserError, match=rf"^policy.model = '.*': it reads a sequence .*{why}"):
            load_policy(saved(hf_config))

    def test_an_end_token_that_the_model_does_not_have(
        self, make_policy: Make, word_tokenizer: WordTokenizer, small: dict[str, int], tmp_path: Path
    ) -> None:
        words = word_tokenizer("<pad>", words="abcdefghijklmn")
        words.add_special_tokens({"eos_token": "<late>"})
        save_model(tmp_path, make_policy(), words)
        with pytest.raises(UserError, match=r"end token is 15, and the model has 12 tokens$"):
            load_policy(str(tmp_path))

    def test_tokens_without_an_embedding_are_not_looked_at(self, make_policy: Make) -> None:
        """A fresh model's padding row is zero, and would hide what is done to it."""
        model = make_policy()
        with torch.no_grad():
            model.get_input_embeddings().weight[3:] = 0
        t = check._random_trajectories(model)
        ids = torch.cat([t.prompt_ids_NP[t.prompt_mask_NP], t.response_ids_NKR[t.response_mask_NKR]])
        assert set(ids.tolist()) == {0, 1, 2}

    def test_nor_is_padding(self, make_policy: Make) -> None:
        model = make_policy()
        model.config.pad_token_id = 0
        t = check._random_trajectories(model)
        ids = torch.cat([t.prompt_ids_NP[t.prompt_mask_NP], t.response_ids_NKR[t.response_mask_NKR]])
        assert 0 not in ids


class TestUnusedIds:
    @pytest.fixture
    def load(self, word_tokenizer: WordTokenizer, small: dict[str, int], tmp_path: Path) -> Callable[..., Tensor]:
        """Loads a policy with an embedding of so many rows and a tokenizer of 10 tokens; its unused ids."""

        def load(rows: int, hole: bool = False) -> Tensor | None:
            words = word_tokenizer("<pad>", "<end>", words="abcdefgh")
            words.eos_token = "<end>"
            if hole:
                vocabulary = {word: i + (i > 4) for word, i in words.get_vocab().items()}
                words = PreTrainedTokenizerFast(
                    tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="a")), eos_token="<end>"
                )
            model = AutoModelForCausalLM.from_config(LlamaConfig(**small | {"vocab_size": rows}))
            save_model(tmp_path, model, words)
            return unused_ids(load_policy(str(tmp_path)))

        return load

    def test_an_embedding_of_exactly_the_tokens_has_none(self, load: Callable[..., Tensor | None]) -> None:
        assert load(10) is None

    def test_rows_behind_the_vocabulary(self, load: Callable[..., Tensor]) -> None:
        assert load(16).tolist() == [False] * 10 + [True] * 6

    def test_a_hole_in_it(self, load: Callable[..., Tensor]) -> None:
        assert load(12, hole=True).nonzero().flatten().tolist() == [5, 11]


@pytest.mark.parametrize(
    ("rope", "expected"),
    [
        ({"rope_type": "default"}, None),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}, None),
        ({"rope_type": "dynamic", "factor": 4.0}, 64),
        ({"rope_type": "longrope", "short_factor": [1.0] * 2, "long_factor": [4.0] * 2}, 32),
    ],
    ids=["default", "yarn", "dynamic", "longrope"],
)
def test_where_positions_begin_to_depend_on_the_whole_length(
    small: dict[str, int], rope: dict[str, Any], expected: int | None
) -> None:
    rope |= {"rope_theta": 1e4}
    config = LlamaConfig(**small, rope_parameters=rope)
    if rope["rope_type"] == "longrope":
        config = Phi3Config(**small, pad_token_id=0, rope_parameters=rope, original_max_position_embeddings=32)
    assert families.longest(config) == expected
    assert context_of(config) == (expected or 64)


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


def mapped_from(file: Path, model: torch.nn.Module) -> list[bool]:
    """Of each parameter: does it lie in a mapping of `file`?"""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    ranges = [line[0].split("-") for line in lines if line[-1] == str(file)]
    ends = [(int(low, 16), int(high, 16)) for low, high in ranges]
    return [any(low <= p.data_ptr() < high for low, high in ends) for p in model.parameters()]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="it looks at Linux's mappings")
class TestMapped:
    """Frozen weights are the file's pages, which all processes of a node share."""

    @pytest.fixture
    def folder(self, tokenizer: PreTrainedTokenizerFast, small: dict[str, int], tmp_path: Path) -> Path:
        torch.manual_seed(0)
        hf_config = LlamaConfig(**small, num_labels=1, pad_token_id=1, tie_word_embeddings=True)
        save_model(tmp_path / "policy", AutoModelForCausalLM.from_config(hf_config), tokenizer)
        classifier = AutoModelForSequenceClassification.from_config(hf_config)
        save_model(tmp_path / "reward", classifier, tokenizer)
        return tmp_path

    def test_reference(self, folder: Path) -> None:
        policy, file = load_policy(str(folder / "policy")), folder / "policy" / "model.safetensors"
        as_loaded = copy.deepcopy(policy)
        twin = frozen_twin(policy)
        assert all(mapped_from(file, twin))
        assert not any(mapped_from(file, policy))
        assert not any(p.requires_grad for p in twin.parameters())
        assert all(p.requires_grad for p in policy.parameters())
        assert policy.get_output_embeddings().weight is policy.get_input_embeddings().weight
        ids = torch.arange(12).view(2, 6)
        for model in (twin, policy):
            assert torch.equal(model(input_ids=ids).logits, as_loaded(input_ids=ids).logits)

    def test_training_the_policy_writes_neither_twin_nor_file(self, folder: Path) -> None:
        file = folder / "policy" / "model.safetensors"
        policy, before = load_policy(str(folder / "policy")), file.read_bytes()
        twin, as_loaded = frozen_twin(policy), load_policy(str(folder / "policy"))
        optimizer = torch.optim.AdamW(policy.parameters(), 0.1, fused=True)
        policy(input_ids=torch.arange(8).view(2, 4)).logits.square().mean().backward()
        optimizer.step()
        assert file.read_bytes() == before
        for trained, frozen, old in zip(policy.parameters(), twin.parameters(), as_loaded.parameters(), strict=True):
            assert torch.equal(frozen, old)
            assert not torch.equal(trained, old)

    def test_reward_model(self, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
        reward, _ = load_reward_model(str(folder / "reward"))
        assert all(mapped_from(folder / "reward" / "model.safetensors", reward.model))
        copied = copy.deepcopy(reward)
        batch = torch.arange(12).view(2, 6), torch.ones(2, 6, dtype=torch.bool)
        assert torch.equal(reward(*batch), copied(*batch))
        save_model(folder / "again", reward.model, tokenizer)
        assert torch.equal(load_reward_model(str(folder / "again"))[0](*batch), reward(*batch))

    def test_another_dtype_than_the_files_is_a_copy_of_the_same_values(self, folder: Path) -> None:
        policy = load_policy(str(folder / "policy"), "bfloat16")
        twin = frozen_twin(policy)
        assert not any(mapped_from(folder / "policy" / "model.safetensors", twin))
        for a, b in zip(policy.parameters(), twin.parameters(), strict=True):
            assert torch.equal(a, b)
            assert a.data_ptr() != b.data_ptr()

    def test_bfloat16_files_are_mapped_too(self, folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
        save_model(folder / "half", load_policy(str(folder / "policy"), "bfloat16"), tokenizer)
        twin = frozen_twin(load_policy(str(folder / "half"), "bfloat16"))
        assert all(mapped_from(folder / "half" / "model.safetensors", twin))

    def test_the_folder_may_be_replaced_or_go_away(self, folder: Path) -> None:
        twin = frozen_twin(load_policy(str(folder / "policy")))
        reward, _ = load_reward_model(str(folder / "reward"))
        batch = torch.arange(12).view(2, 6), torch.ones(2, 6, dtype=torch.bool)
        before = twin(batch[0]).logits, reward(*batch)
        (folder / "policy").rename(folder / "old")
        (folder / "reward").rename(folder / "policy")
        shutil.rmtree(folder / "policy")
        shutil.rmtree(folder / "old")
        assert torch.equal(twin(batch[0]).logits, before[0])
        assert torch.equal(reward(*batch), before[1])


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
        model = AutoModelForSequenceClassification.from_config(LlamaConfig(**small, num_labels=1, pad_token_id=1))
        model.config.reward_mean = 0.25
        save_model(tmp_path, model, tokenizer)
        return tmp_path

    def test_it_is_frozen_and_keeps_its_mean(self, folder: Path) -> None:
        reward, head = load_reward_model(str(folder))
        assert head is None
        assert not reward.training
        assert not any(p.requires_grad for p in reward.parameters())
        assert reward.phi.bias.item() == pytest.approx(-0.25)

    @pytest.mark.parametrize(("bias", "residual"), [(True, True), (False, True), (False, False)])
    def test_a_head_saved_beside_it_comes_back(self, folder: Path, bias: bool, residual: bool) -> None:
        head = FeedbackHead(16, 16, attention_width=8, num_heads=2, score_bias=bias, residual=residual)
        if bias:
            torch.nn.init.constant_(head.score.bias, 0.75)
        save_feedback_head(folder, head)
        _, loaded = load_reward_model(str(folder))
        assert loaded is not None
        batch = torch.randn(3, 16), torch.randn(3, 5, 16), torch.ones(3, 5, dtype=torch.bool)
        assert torch.equal(loaded(*batch, 0.3), head(*batch, 0.3))

    def test_no_head(self, tmp_path: Path) -> None:
        assert load_feedback_head(tmp_path) is None


def test_padding_that_the_model_has_no_row_for_is_filled_with_another_id(
    make_policy: Make, word_tokenizer: WordTokenizer
) -> None:
    words = word_tokenizer("<pad>", words="abcdefghijk")
    assert (words.pad_token_id, padding_id(make_policy(), words)) == (None, 0)
    words.add_special_tokens({"pad_token": "<late>"})
    assert (words.pad_token_id, padding_id(make_policy(), words)) == (12, 0)
    words.pad_token = "c"
    assert padding_id(make_policy(), words) == words.convert_tokens_to_ids("c") != 0
