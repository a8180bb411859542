"""Adapters in a policy: what they add by hand, what is trained and what is not, and peft as the oracle of folders."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from r2m.config import Config, Lora
from r2m.errors import UserError
from r2m.models.layers import LINEAR
from r2m.models.saving import save_model
from r2m.policy.forward import policy_forward
from r2m.policy.loading import load_policy
from r2m.policy.lora import adapters_off, add_adapters, linear_layers, merged_weights
from r2m.training.trainer import Trainer
from r2m.workers import Workers
from tests.families import EOS, tiny, tokenizer
from tests.family_contract import trajectories
from tests.family_tables import CACHED

Make = Callable[..., PreTrainedModel]
MakeTrainer = Callable[..., Trainer]
RANK = "policy.lora.rank=4"
T = trajectories([[5, 6, 7, 8, 9, 10], [11, 12]], [[[3, 4, EOS], [20, 21]], [[30, 31, 32], [40]]])


def adapters(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if ".lora_" in name}


def disturb(model: PreTrainedModel) -> PreTrainedModel:
    """As if trained: B is zero before."""
    random = torch.Generator().manual_seed(1)
    for name, p in adapters(model).items():
        if ".lora_B." in name:
            torch.nn.init.normal_(p, 0, 0.05, generator=random)
    return model


def log_probs(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        return policy_forward(model, T, 0.8).log_probs_NKR[T.response_mask_NKR]


class TestOneLayer:
    def test_by_hand(self, make_policy: Make) -> None:
        """W = I, A = (1, 2), B = (3, 0)ᵀ, α / r = 4: of (1, 1) it makes (1, 1) + 4 · 3 · (3, 0) / 3 = (37, 1)."""
        from transformers import LlamaConfig

        model = make_policy(
            LlamaConfig(vocab_size=4, hidden_size=2, intermediate_size=2, num_hidden_layers=1, num_attention_heads=1)
        )
        add_adapters(model, Lora(rank=1, alpha=4.0, targets=("mlp.down_proj",)), 0)
        layer = model.model.layers[0].mlp.down_proj
        assert {name.split(".lora_")[0] for name in adapters(model)} == {"model.layers.0.mlp.down_proj"}
        with torch.no_grad():
            layer.base_layer.weight.copy_(torch.eye(2))
            layer.lora_A["default"].weight.copy_(torch.tensor([[1.0, 2.0]]))
            layer.lora_B["default"].weight.copy_(torch.tensor([[3.0], [0.0]]))
        x = torch.ones(1, 2)
        assert layer(x).tolist() == [[37.0, 1.0]]
        with adapters_off(model):
            assert layer(x).tolist() == [[1.0, 1.0]]
        merged = dict(merged_weights(model))["model.layers.0.mlp.down_proj.weight"]
        assert merged.tolist() == [[13.0, 24.0], [0.0, 1.0]]

    def test_targets_are_layers_by_their_last_parts(self, make_policy: Make) -> None:
        model = make_policy()
        add_adapters(model, Lora(targets=("layers.1.self_attn.q_proj", "down_proj")), 0)
        assert {name.removeprefix("model.layers.").split(".lora_")[0] for name in adapters(model)} == {
            "1.self_attn.q_proj", "0.mlp.down_proj", "1.mlp.down_proj",
        }  # fmt: skip

    @pytest.mark.parametrize("target", ["q_prj", "proj", "lm_head", "norm", "embed_tokens"])
    def test_no_such_layer(self, make_policy: Make, target: str) -> None:
        with pytest.raises(UserError, match=rf"^policy.lora.targets = '{target}': .* some of q_proj, k_proj, v_proj"):
            add_adapters(make_policy(), Lora(targets=("q_proj", target)), 0)


# All that transformers 5.19 ships pass, but for those that are refused as policies; these are one of each kind: tied
# embeddings and Conv1D (gpt2), a linear class of its own (falcon), experts in one tensor (afmoe, mixtral, gpt_oss,
# deepseek_v3), routers that give two outputs or whose weights are read directly (phimoe, longcat_flash), blocks that
# share weights (zamba), recurrent layers, no cache (rwkv, roberta), an encoder's attention that is not run (bart).
FAMILIES = (
    "llama", "qwen2", "gemma3", "gpt2", "gpt_neox", "falcon", "phi3", "afmoe", "mixtral", "gpt_oss", "deepseek_v3",
    "phimoe", "longcat_flash", "mamba", "mamba2", "jamba", "zamba", "qwen3_next", "bart", "rwkv", "roberta",
)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str) -> None:
    """Fresh adapters change no bit, those that are off neither (a last bit in recurrent layers, whose sums
    over time come in another order); only they are trained; merged they say the same."""
    last_bit = 2e-6 if family in CACHED else 0.0
    model, merged = tiny(family).eval(), tiny(family).eval()
    before = log_probs(model)
    names = [name for name, _ in model.named_parameters()]
    add_adapters(model, Lora(rank=4), 0)
    torch.testing.assert_close(log_probs(model), before, rtol=0, atol=last_bit)
    disturb(model)
    now = log_probs(model)
    assert (now - before).abs().max() > 1e-2
    with adapters_off(model):
        torch.testing.assert_close(log_probs(model), before, rtol=0, atol=last_bit)
    policy_forward(model, T, 0.8).log_probs_NKR[T.response_mask_NKR].sum().backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None}
    assert moved <= adapters(model).keys()
    assert len(moved) >= 4
    weights = dict(merged_weights(model))
    assert list(weights) == names
    with torch.no_grad():
        for name, p in merged.named_parameters():
            p.copy_(weights[name])
    torch.testing.assert_close(log_probs(merged), now, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("family", ["gpt2", "afmoe", "zamba"])
def test_families_come_back(family: str, tmp_path: Path) -> None:
    """By peft to the last bit, by us in one model."""
    save_model(tmp_path / "base", tiny(family), tokenizer())
    model = load_policy(str(tmp_path / "base"))
    add_adapters(model, Lora(rank=4), 0)
    save_model(tmp_path / "adapters", disturb(model), tokenizer())
    ids = torch.tensor([[5, 6, 7, 8]])
    oracle = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapters")
    assert torch.equal(oracle(ids).logits, model(ids).logits)
    opened = load_policy(str(tmp_path / "adapters"))
    torch.testing.assert_close(log_probs(opened), log_probs(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", LINEAR)
def test_layers_of_known_families_are_theirs(family: str) -> None:
    """What a plan knows of them without a model."""
    assert {name.split(".")[-1] for name in linear_layers(tiny(family))} == set(LINEAR[family])


class TestReference:
    def test_off_within_off_and_after_an_error(self) -> None:
        model = tiny("llama").eval()
        add_adapters(model, Lora(), 0)
        disturb(model)
        on = log_probs(model)
        with suppress(ZeroDivisionError), adapters_off(model):
            with adapters_off(model):
                off = log_probs(model)
            assert torch.equal(log_probs(model), off)
            raise ZeroDivisionError
        assert torch.equal(log_probs(model), on)
        assert not torch.equal(on, off)
        assert all(p.requires_grad for p in adapters(model).values())

    def test_it_is_where_training_began_to_the_last_bit(
        self, make_trainer: MakeTrainer, forum_models: tuple[str, str]
    ) -> None:
        trainer = make_trainer(RANK)
        start = load_policy(forum_models[0])
        own = {name: p.clone() for name, p in trainer.policy.model.named_parameters() if ".lora_" not in name}
        *_, last = trainer.rounds(1)
        assert last.metrics["kl/sequence"] != 0
        block = last.trajectories
        with torch.no_grad():
            expected = policy_forward(start, block, 0.8)
            now = trainer.policy.forward(block, 0.8)
        found = trainer.policy.reference(block, 0.8)
        mask = block.response_mask_NKR
        assert torch.equal(found.log_probs_NKR[mask], expected.log_probs_NKR[mask])
        assert torch.equal(found.response_hidden_NKRD, expected.response_hidden_NKRD)
        assert not torch.equal(now.log_probs_NKR[mask], expected.log_probs_NKR[mask])
        after = dict(trainer.policy.model.named_parameters())
        assert all(torch.equal(p, after[name]) and after[name].grad is None for name, p in own.items())

    def test_what_it_writes_is_what_the_start_writes(self, make_trainer: MakeTrainer) -> None:
        """Held-out responses: of the reference after training those of the policy before, and other ones now."""
        trainer = make_trainer(RANK, "algorithm.lr=1e-1")
        first = trainer.sampler.held_out(trainer.held_out).response_ids_NKR
        for _ in trainer.rounds(1):
            pass
        reference = trainer.sampler.held_out(trainer.held_out, reference=True).response_ids_NKR
        assert torch.equal(reference, first)
        now = trainer.sampler.held_out(trainer.held_out).response_ids_NKR
        assert now.shape != first.shape or not torch.equal(now, first)


class TestRounds:
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_the_first_round_has_kl_0_and_ratio_1(self, make_trainer: MakeTrainer, dtype: str) -> None:
        trainer = make_trainer(RANK, f"policy.dtype={dtype}", "algorithm.epochs=1")
        before = {name: p.clone() for name, p in adapters(trainer.policy.model).items()}
        assert {p.dtype for p in before.values()} == {getattr(torch, dtype)}
        assert {p.dtype for p in trainer.policy.descent.masters.values()} == {torch.float32}
        r = next(trainer.rounds(1))
        assert r.metrics["kl/sequence"] == 0
        assert r.metrics["train/ratio_error_first_minibatch"] < (1e-5 if dtype == "float32" else 1e-1)
        after = adapters(trainer.policy.model)
        assert all(not torch.equal(p, before[name]) for name, p in after.items() if ".lora_B." in name)

    def test_what_is_drawn_after_the_adapters_is_as_without_them(self, make_trainer: MakeTrainer) -> None:
        plain, adapted = make_trainer(), make_trainer(RANK)
        rest = torch.rand(3)
        assert plain.head is not None
        assert adapted.head is not None
        for ours, theirs in zip(adapted.head.parameters(), plain.head.parameters(), strict=True):
            assert torch.equal(ours, theirs)
        make_trainer()
        assert torch.equal(torch.rand(3), rest)

    def test_they_are_drawn_from_the_run_s_seed(self, make_trainer: MakeTrainer) -> None:
        first, again, other = (adapters(make_trainer(RANK, f"run.seed={s}").policy.model) for s in (0, 0, 1))
        a = [name for name in first if ".lora_A." in name]
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not any(torch.equal(first[name], other[name]) for name in a)

    def test_remax_writes_its_greedy_responses_with_them(self, make_trainer: MakeTrainer) -> None:
        *_, last = make_trainer(RANK, "algorithm.advantage=remax").rounds(1)
        assert last.metrics["rollout/log_prob_error"] < 1e-4


class TestFolders:
    @pytest.fixture
    def trained(self, make_trainer: MakeTrainer, tmp_path: Path) -> tuple[Trainer, Path]:
        """A trainer of three rounds, and where it left its models."""
        trainer = make_trainer(RANK, "algorithm.rounds=3")
        for _ in trainer.rounds(1):
            pass
        trainer.export(tmp_path / "run")
        return trainer, tmp_path / "run" / "policy"

    def test_peft_s_own_loader_gives_the_same_logits(
        self, trained: tuple[Trainer, Path], forum_models: tuple[str, str]
    ) -> None:
        trainer, folder = trained
        files = {path.name for path in folder.iterdir()}
        assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer_config.json"} <= files
        assert "model.safetensors" not in files
        base = AutoModelForCausalLM.from_pretrained(forum_models[0])
        ids = torch.tensor([[5, 6, 7, 8]])
        start = base(ids).logits
        oracle = PeftModel.from_pretrained(base, folder)
        assert oracle.peft_config["default"].base_model_name_or_path == forum_models[0]
        assert torch.equal(oracle(ids).logits, trainer.policy.model(ids).logits)
        assert not torch.equal(oracle(ids).logits, start)

    def test_opened_it_is_one_model_of_what_weights_gives(self, trained: tuple[Trainer, Path]) -> None:
        trainer, folder = trained
        opened = load_policy(str(folder))
        own, given = dict(opened.named_parameters()), dict(trainer.policy.weights())
        assert own.keys() == given.keys()
        assert all(torch.equal(own[name], given[name]) for name in own)
        ids = torch.tensor([[5, 6, 7, 8]])
        torch.testing.assert_close(opened(ids).logits, trainer.policy.model(ids).logits, rtol=1e-5, atol=1e-5)

    def test_a_checkpoint_holds_the_adapters_alone(self, trained: tuple[Trainer, Path]) -> None:
        trainer, _ = trained
        state = trainer.policy.state()
        held = [name for name in state if name.startswith("policy/")]
        assert set(held) == {f"policy/{name}" for name in adapters(trainer.policy.model)}
        # Width 32, 64 within the MLP, two layers: r (in + out) values for each of seven linear layers.
        assert sum(state[name].numel() for name in held) == 2 * 4 * (4 * (32 + 32) + 3 * (32 + 64))

    def test_more_adapters_on_adapters(
        self, trained: tuple[Trainer, Path], make_config: Callable[..., Config], forum_models: tuple[str, str],
        tmp_path: Path,
    ) -> None:  # fmt: skip
        """A run that starts from adapters: they are its reference, and what it leaves comes on top of them."""
        _, folder = trained
        start = load_policy(str(folder))
        trainer = Trainer(make_config(RANK, "run.seed=1"), (str(folder), forum_models[1]), Workers())
        ids = torch.tensor([[5, 6, 7, 8]])
        with trainer.policy.whole(reference=True) as reference:
            assert torch.equal(reference(ids).logits, start(ids).logits)
        for _ in trainer.rounds(1):
            pass
        trainer.export(tmp_path / "second")
        opened = load_policy(str(tmp_path / "second" / "policy"))
        torch.testing.assert_close(opened(ids).logits, trainer.policy.model(ids).logits, rtol=1e-5, atol=1e-5)
        assert not torch.equal(opened(ids).logits, start(ids).logits)

    def test_those_of_another_model_are_refused(
        self, make_policy: Make, small: dict[str, int], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
    ) -> None:
        from transformers import GPTNeoXConfig, LlamaConfig

        others = (LlamaConfig(**small | {"hidden_size": 32}), GPTNeoXConfig(**small), LlamaConfig(**small))
        for folder, config in zip(("wider", "neox", "base"), others, strict=True):
            model = make_policy(config)
            save_model(tmp_path / folder, model, tokenizer)
        model = load_policy(str(tmp_path / "base"))
        add_adapters(model, Lora(rank=2), 0)
        save_model(tmp_path / "adapters", model, tokenizer)
        config = tmp_path / "adapters" / "adapter_config.json"
        text = config.read_text()
        for folder in ("wider", "neox"):
            config.write_text(text.replace(str(tmp_path / "base"), str(tmp_path / folder)))
            with pytest.raises(UserError, match=r"^policy.model = .*adapters': its adapters are not those of its m"):
                load_policy(str(tmp_path / "adapters"))
