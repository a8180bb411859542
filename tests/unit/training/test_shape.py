"""Shapes of published models that name their sizes in other ways than Llama, and plans of tiny ones."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import (
    CONFIG_MAPPING,
    AutoModelForSequenceClassification,
    BertConfig,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MptConfig,
    OPTConfig,
    PreTrainedConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from r2m.config import load
from r2m.errors import UserError
from r2m.models.families import CacheUse
from r2m.models.saving import save_model
from r2m.training.plan import Plan
from r2m.training.preflight import plan_for
from r2m.training.shape import shape_of
from tests.families import tiny, tokenizer


@pytest.mark.parametrize(
    ("hf_config", "parameters", "layers", "context"),
    [
        (GPT2Config(), 124_439_808, 12, 1024),
        (
            OPTConfig(
                hidden_size=1024, word_embed_proj_dim=512, num_hidden_layers=24, num_attention_heads=16,
                ffn_dim=4096, do_layer_norm_before=False,
            ),
            331_196_416, 24, 2048,
        ),
        (BloomConfig(hidden_size=1024, n_layer=24, n_head=16), 559_214_592, 24, None),
        (MptConfig(d_model=4096, n_layers=32, n_heads=32, vocab_size=50432), 6_649_286_656, 32, 2048),
        (MambaConfig(hidden_size=768, num_hidden_layers=24), 129_135_360, 24, None),
    ],
    ids=["gpt2", "opt-350m", "bloom-560m", "mpt-7b", "mamba-130m"],
)  # fmt: skip
def test_published_models(hf_config: PreTrainedConfig, parameters: int, layers: int, context: int | None) -> None:
    shape = shape_of(hf_config)
    assert (shape.parameters, shape.layers, shape.context) == (parameters, layers, context)


def test_the_text_configuration_inside() -> None:
    """Gemma 3 with its vision tower, Llama 4."""
    for family in ("gemma3", "llama4"):
        whole = CONFIG_MAPPING[family]()
        shape, text = shape_of(whole), whole.get_text_config()
        assert (shape.width, shape.layers) == (text.hidden_size, text.num_hidden_layers)
        assert shape.context == text.max_position_embeddings


class TestRefused:
    @pytest.mark.parametrize(
        ("hf_config", "match"),
        [
            (T5Config(), r"no causal language model can be planned .* 't5'; ValueError: Unrecognized"),
            (BertConfig(), r"policy\.model = '': it reads a sequence in both directions"),
            (LlamaConfig(hidden_size=-32), r"no causal language model can be planned .* 'llama'; RuntimeError"),
        ],
    )
    def test_one_line(self, hf_config: PreTrainedConfig, match: str) -> None:
        with pytest.raises(UserError, match=match) as error:
            shape_of(hf_config)
        assert "\n" not in str(error.value)

    def test_a_reward_model_that_reads_at_end_tokens(self) -> None:
        with pytest.raises(UserError, match=r"^reward\.model = '': it reads at end tokens, and"):
            shape_of(T5Config(num_labels=1), "reward.model")

    def test_the_field_is_the_reward_models(self) -> None:
        with pytest.raises(UserError, match=r"^reward\.model = '': no sequence classifier can be planned"):
            shape_of(CONFIG_MAPPING["mamba"](), "reward.model")


class TestPlanned:
    """`r2m train --dry-run` with tiny models in folders."""

    @pytest.fixture
    def planned(self, text_recipe: Callable[..., str], tmp_path: Path) -> Callable[..., Plan]:
        def make(policy: str, *overrides: str) -> Plan:
            folder = tmp_path / policy
            if not folder.exists():
                save_model(folder, tiny(policy), tokenizer())
            rows = [{"prompt": f"w{i} w{i + 1}"} for i in range(8)]
            return plan_for(load(text_recipe(rows), [f"policy.model={folder}", *overrides]))

        return make

    @pytest.mark.parametrize("policy", ["opt, 350m", "gemma3", "llama4", "mpt", "bert", "gpt2"])
    def test_families_that_share_prompts(self, planned: Callable[..., Plan], policy: str) -> None:
        p = planned(policy)
        assert p.prompt_tokens == 64 - 8
        assert not p.notes
        width = 16 if policy == "opt, 350m" else 32
        assert p.memory["hidden states"] == 4 * (56 + 4 * 7) * width * 4

    @pytest.mark.parametrize(("policy", "way"), [("qwen3_next", CacheUse.CACHED), ("openai-gpt", CacheUse.RERUN)])
    def test_families_that_do_not(self, planned: Callable[..., Plan], policy: str, way: CacheUse) -> None:
        p = planned(policy)
        assert p.notes == (f"slower, as this family's prompts can't be shared by their responses: {way.value}",)

    def test_the_reward_models_context_bounds_a_policy_without_one(self, planned: Callable[..., Plan]) -> None:
        assert planned("mamba").prompt_tokens == 64 - 8
        assert planned("bloom", "task.max_prompt_tokens=20").prompt_tokens == 20

    def test_without_any_context_the_plan_asks_for_a_bound(
        self, planned: Callable[..., Plan], tmp_path: Path
    ) -> None:
        reward = AutoModelForSequenceClassification.from_config(
            BloomConfig(hidden_size=16, n_layer=1, n_head=2, vocab_size=96, num_labels=1)
        )
        save_model(tmp_path / "reward", reward, tokenizer())
        own = f"reward.model={tmp_path / 'reward'}"
        with pytest.raises(UserError, match=r"^task\.max_prompt_tokens: set it"):
            planned("mamba", own)
        assert planned("mamba", own, "task.max_prompt_tokens=30").prompt_tokens == 30

    def test_t5(self, planned: Callable[..., Plan], tmp_path: Path) -> None:
        small = T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=96)
        small.decoder_start_token_id = 0
        save_model(tmp_path / "t5", T5ForConditionalGeneration(small), tokenizer())
        with pytest.raises(UserError, match=r"^policy\.model = '.*/t5': no causal language model") as error:
            planned("t5")
        assert "\n" not in str(error.value)
