"""Plans worked by hand, shapes against published parameter counts, sizes against what the code allocates."""

from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig, Phi3Config, PreTrainedConfig, Qwen2Config

from r2m.config import Config, load, validate
from r2m.core.feedback_head import FeedbackHead
from r2m.core.trajectories import Trajectories
from r2m.errors import UserError
from r2m.limits import BUCKET
from r2m.models.families import CacheUse
from r2m.policy.forward import HiddenStates, policy_forward
from r2m.policy.state import module_tensors, optimizer_tensors
from r2m.training.memory import CUDA, LIBRARIES, microbatch_bytes, trained_parameters
from r2m.training.plan import GIB, Plan, human, plan, resolve_device
from r2m.training.plan_table import plan_table
from r2m.training.shape import Shape, shape_of

LLAMA_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192,
}  # fmt: skip
QWEN_3B = {
    "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
    "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
PYTHIA_1B = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 8,
    "vocab_size": 50304,
}  # fmt: skip
PYTHIA_2P8B = {
    "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32, "num_attention_heads": 32,
    "vocab_size": 50304,
}  # fmt: skip

POLICY = Shape(parameters=1000, width=8, layers=2, kv_values=16, mlp_values=64, vocabulary=10, context=100)
REWARD = replace(POLICY, parameters=500, width=6)


def config(algorithm: dict[str, object] | None = None, **sections: dict[str, object]) -> Config:
    tree = {
        "task": {"kind": "text", "data": "rows.jsonl", "max_prompt_tokens": 20},
        "policy": {"model": "p"},
        "reward": {"model": "r", "attention_width": 4, "num_heads": 2} | sections.get("reward", {}),
        "run": sections.get("run", {}),
        "algorithm": {
            "queries": 12, "responses": 4, "trajectories": 500, "microbatch": 4, "max_response_tokens": 10,
        } | (algorithm or {}),
    }  # fmt: skip
    return validate(tree | {k: v for k, v in sections.items() if k not in ("reward", "run")})


class TestShape:
    @pytest.mark.parametrize(
        ("hf_config", "parameters"),
        [
            (LlamaConfig(**LLAMA_8B), 8_030_261_248),
            (Qwen2Config(**QWEN_3B), 3_085_938_688),
            (GPTNeoXConfig(**PYTHIA_1B), 1_011_781_632),
            (GPTNeoXConfig(**PYTHIA_2P8B), 2_775_208_960),
        ],
        ids=["llama-3-8b", "qwen2.5-3b", "pythia-1b", "pythia-2.8b"],
    )
    def test_published_parameter_counts(self, hf_config: PreTrainedConfig, parameters: int) -> None:
        assert shape_of(hf_config).parameters == parameters

    def test_reward_model_has_a_score_in_place_of_the_output_layer(self) -> None:
        shape = shape_of(LlamaConfig(**LLAMA_8B, num_labels=1), "reward.model")
        assert shape.parameters == 8_030_261_248 - 128256 * 4096 + 4096

    def test_dtype_of_the_saved_weights(self) -> None:
        assert shape_of(LlamaConfig(**LLAMA_8B, dtype="bfloat16")).stored == "bfloat16"
        assert shape_of(LlamaConfig(**LLAMA_8B)).stored == "float32"

    def test_dimensions(self) -> None:
        assert shape_of(LlamaConfig(**LLAMA_8B)) == Shape(
            8_030_261_248, width=4096, layers=32, kv_values=2 * 32 * 1024, mlp_values=4 * 14336, vocabulary=128256,
            context=8192,
        )  # fmt: skip
        neox = shape_of(GPTNeoXConfig(**PYTHIA_1B))
        assert (neox.kv_values, neox.mlp_values) == (2 * 16 * 2048, 2 * 8192)


class TestPlan:
    def test_rounds_steps_and_what_the_budget_leaves(self) -> None:
        p = plan(config({"epochs": 3, "minibatches": 2}, reward={"minibatches": 4, "epochs": 2}), POLICY, REWARD)
        assert (p.rounds, p.round_trajectories, p.trajectories, p.left_over) == (10, 48, 480, 20)
        assert (p.policy_steps, p.head_steps) == (60, 80)

    def test_rounds_leave_nothing(self) -> None:
        p = plan(config({"trajectories": None, "rounds": 7}), POLICY, REWARD)
        assert (p.trajectories, p.left_over) == (7 * 48, 0)

    @pytest.mark.parametrize(("omega_min", "t"), [(0.0, 10.0), (0.5, 5.0), (1.0, 0.0)])
    def test_omega_settles(self, omega_min: float, t: float) -> None:
        p = plan(config(reward={"omega_min": omega_min}), POLICY, REWARD)
        assert p.omega_settles == pytest.approx(t)

    def test_memory_by_hand(self) -> None:
        p = plan(config(), POLICY, REWARD)
        assert p.memory == {
            "policy weights": 4000,
            "AdamW states": 8000,
            "reference": 4000,
            "reward model": 2000,
            # q 6*4, k 8*4, v 8*4, output 4*6, φ 6 + 1: 119 parameters of 4 bytes, with gradient and two states
            "feedback head, trained": 119 * 16,
            "hidden states": 12 * (20 + 4 * 9) * 8 * 4,
        }
        assert p.phases["sampling"] == 48 * (2 * 2 * 4 * 30 * 4 + 4 * 4 * 10)
        assert p.phases["head microbatch"] == 4 * 29 * 8 * 4
        assert p.peak_memory == LIBRARIES + sum(p.memory.values()) + max(p.phases.values())
        assert p.checkpoint == 3 * (4000 + 119 * 4)
        assert p.export == 4000 + 2000 + 119 * 4
        assert p.disk_left == 2 * p.checkpoint + p.export  # run.keep_checkpoints = 2; while it runs, one more
        assert p.disk == 3 * p.checkpoint + p.export  # two kept, one being written

    def test_bfloat16_computes_beside_fp32_weights(self) -> None:
        p = plan(config({"lr": 1e-6}, policy={"model": "p", "dtype": "bfloat16"}), POLICY, REWARD)
        parts = ("policy weights", "fp32 weights", "AdamW states", "reference", "reward model")
        assert [p.memory[part] for part in parts] == [2000, 4000, 8000, 2000, 2000]
        assert p.memory["hidden states"] == 12 * (20 + 4 * 9) * 8 * 2
        assert (p.checkpoint, p.export) == (3 * (4000 + 119 * 4), 2000 + 2000 + 119 * 4)

    @pytest.mark.parametrize(
        ("stage", "weights", "states", "frozen", "gradients"),
        [
            ("zero1", 4000, (1000, 2000), (4000, 2000), 4000 + 1000),
            ("zero2", 4000, (1000, 2000), (4000, 2000), 1000),
            ("zero3", 1000, (1000, 2000), (1000, 500), 4000),  # the weights, gathered; gradients are held throughout
        ],
    )
    def test_what_each_stage_divides_by_four_workers(
        self, stage: str, weights: int, states: tuple[int, int], frozen: tuple[int, int], gradients: int
    ) -> None:
        c = config(policy={"model": "p", "sharding": stage}, run={"workers": 4})
        m = plan(c, POLICY, REWARD)
        held = m.memory
        assert held["policy weights"] == weights
        assert (held["fp32 weights"], held["AdamW states"]) == states
        assert (held["reference"], held["reward model"]) == frozen
        kept = microbatch_bytes(c, POLICY, 4, 20, 4)
        of_the_responses, embedding = 4000, 10 * 8 * 4  # until the prompts' are there
        assert m.phases["policy update"] == gradients + of_the_responses + embedding + kept
        whole = plan(config(run={"workers": 4}), POLICY, REWARD)
        assert m.phases["sampling"] - whole.phases["sampling"] == (4000 if stage == "zero3" else 0)
        assert held.get("gradients", 0) == (1000 if stage == "zero3" else 0)
        assert m.phases.get("whole models, to be saved", 0) == (4000 if stage == "zero3" else 0)
        assert m.checkpoint == whole.checkpoint

    def test_one_sends_whole_gradients_and_three_gathers_a_part_of_a_large_model(self) -> None:
        large = replace(POLICY, parameters=4 * 10**9)
        at = {"model": "p", "sharding": "zero3", "dtype": "bfloat16"}
        c = config(policy=at, run={"workers": 2})
        p = plan(c, large, REWARD)
        assert p.memory["ZeRO's buffers"] == 2 * BUCKET * 2
        assert p.memory["gradients"] == 8 * 10**9
        update = 2 * 10**9 + 8 * 10**9 + 10 * 8 * 2  # gathered, gradients of the responses, embedding
        assert p.phases["policy update"] == update + microbatch_bytes(c, large, 4, 20, 2)

    def test_what_is_offloaded_waits_on_the_host(self) -> None:
        def on_gpu(**policy: object) -> Plan:
            return plan(config(policy={"model": "p", **policy}, run={"workers": 2, "device": "gpu"}), POLICY, REWARD)

        states = {"fp32 weights": 2000, "AdamW states": 4000, "gradients": 2000}
        some = on_gpu(sharding="zero2", offload="optimizer")
        assert some.host == states
        assert some.host_memory == LIBRARIES + 8000
        assert {"policy weights", "reference"} <= some.memory.keys()
        everything = on_gpu(sharding="zero3", offload="all")
        weights = {"policy weights": 2000, "reference": 2000, "reward model": 1000}
        assert everything.host == states | weights
        assert not {*weights, *states} & everything.memory.keys()

    def test_adapters_alone_are_trained_and_the_reference_is_no_second_copy(self) -> None:
        shape = replace(POLICY, linear=(("q_proj", 32), ("up_proj", 68)))
        some = {"rank": 3, "targets": ["model.layers.0.q_proj"]}
        for lora, trained in ((some, 3 * 32), ({"rank": 3}, 3 * 100)):
            c = config(policy={"model": "p", "lora": lora})
            assert trained_parameters(c.policy, shape) == trained
            p = plan(c, shape, REWARD)
            assert "reference" not in p.memory
            assert p.memory["policy weights"] == 4 * (1000 + trained)
            assert p.memory["AdamW states"] == 8 * trained
            assert p.phases["policy update"] == 2 * 4 * trained + microbatch_bytes(c, shape, 4, 20, 4)
            assert p.checkpoint == 3 * 4 * (trained + 119)
            assert p.export == 4 * trained + 2000 + 119 * 4

    def test_recomputed_activations_are_one_layers_and_what_goes_into_each(self) -> None:
        shape = replace(POLICY, layers=8, vocabulary=1)
        plain, again = (config(policy={"model": "p", "recompute": r}) for r in (False, True))
        tokens, read = 20 + 4 * 9, 4 * 29
        layer, logits = tokens * (12 * 8 + 64), 2 * 4 * 4 * 10
        assert microbatch_bytes(plain, shape, 4, 20, 4) == 4 * (8 * layer + read * 16) + logits
        assert microbatch_bytes(again, shape, 4, 20, 4) == 4 * (layer + tokens * (8 * 8 + 16) + read * 2) + logits

    def test_vllm_sleeps_on_the_workers_gpus_or_has_its_own(self) -> None:
        def with_vllm(**rollout: object) -> Plan:
            c = config(rollout={"engine": "vllm", **rollout}, run={"workers": 2, "device": "gpu"})
            return plan(c, POLICY, REWARD, gpus=6, worker_gib=10.0)

        shared = with_vllm(memory=0.5)
        assert shared.phases["sampling by vLLM"] == 5 * GIB
        assert shared.host["vLLM's weights, asleep"] == 4000
        assert (shared.gpus, shared.rollout_gpus) == (2, 0)
        own = with_vllm(gpus=4)
        assert (own.gpus, own.rollout_gpus) == (2, 4)
        assert not any("sampling" in phase for phase in own.phases)
        with pytest.raises(UserError, match=r"^run.workers = 2 and rollout.gpus = 6: each takes a gpu, .* are 6$"):
            with_vllm(gpus=6)
        with pytest.raises(UserError, match=r"^rollout.memory = 1e-07: vLLM's weights take"):
            with_vllm(memory=1e-7)

    def test_a_guess_at_the_time(self) -> None:
        """Twice as many rounds take twice as long, recomputation a third more in training, adapters a third less."""
        policy = {"model": "p"}
        guesses = [
            plan(config(policy=policy | more), POLICY, REWARD).time
            for more in ({}, {"recompute": True}, {"lora": {}})
        ]
        full, again, lora = (g.training for g in guesses if g is not None)
        assert (again / full, lora / full) == pytest.approx((4 / 3, 2 / 3))
        # 12 queries' (20 + 4 * 9) tokens, 2 epochs of forward and backward; half of 85 GFLOP/s
        assert full == pytest.approx(2 * 3 * 2 * 1000 * 12 * (20 + 4 * 9) / 42.5e9)

    def test_adamw_on_the_host_takes_its_time(self) -> None:
        """2 epochs of 3 steps on half of 1000 values each, 28 bytes of each at half of 18.5 GB/s."""
        here, there = (
            plan(
                config({"minibatches": 3}, policy={"model": "p", "sharding": "zero2", "offload": offload},
                       run={"workers": 2, "device": "gpu"}), POLICY, REWARD,
            ).time for offload in ("none", "optimizer")
        )  # fmt: skip
        assert here is not None
        assert there is not None
        assert there.training - here.training == pytest.approx(2 * 3 * 28 * 500 / 9.25e9)

    def test_rloo_has_no_head(self) -> None:
        p = plan(config(reward={"feedback": False}), POLICY, REWARD)
        assert (p.head_steps, p.omega_settles) == (0, None)
        assert set(p.memory) == {"policy weights", "AdamW states", "reference", "reward model"}
        assert p.checkpoint == 3 * 4000

    def test_sft_and_an_untrained_head_take_no_steps(self) -> None:
        sft = plan(config({"epochs": 0}, reward={"feedback": False}), POLICY, REWARD)
        assert (sft.rounds, sft.policy_steps, sft.head_steps) == (10, 0, 0)
        p = plan(config(reward={"train_head": False}), POLICY, REWARD)
        assert p.head_steps == 0
        assert p.memory["feedback head"] == 119 * 4
        assert p.checkpoint == 3 * 4000 + 119 * 4

    def test_a_fixed_omega_has_settled_at_the_start(self) -> None:
        p = plan(config(reward={"omega_schedule": "constant", "omega_min": 0.5}), POLICY, REWARD)
        assert p.omega_settles == 0

    def test_original_pairs_that_anchor_the_head(self) -> None:
        """A pair for each query, of 20 + 2 * 9 tokens that predict one."""
        anchored = {"anchor": 0.5, "anchor_data": "pairs"}
        without, with_them = (plan(config(reward=reward), POLICY, REWARD) for reward in ({}, anchored))
        assert with_them.memory["hidden states"] - without.memory["hidden states"] == 12 * 38 * 8 * 4
        assert with_them.time is not None
        assert without.time is not None
        assert with_them.time.forwards > without.time.forwards
        with pytest.raises(UserError, match=r"response tokens \+ 38 of an original pair\) \* 8 \* 4"):
            plan(config(reward=anchored, run={"hidden_budget_gib": 1e-6}), POLICY, REWARD)

    def test_judgements_are_noted(self) -> None:
        p = plan(config(reward={"labels": 3}, run={"judge": "judge"}), POLICY, REWARD)
        assert p.notes[-1] == f"{3 * p.rounds} judgements by run.judge = 'judge', 3 groups of 4 responses a round"

    def test_greedy_responses_of_remax(self) -> None:
        """One a query beside the K = 4: sampled with them, their hidden states kept beside theirs."""
        p = plan(config({"advantage": "remax"}), POLICY, REWARD)
        assert (p.round_trajectories, p.round_greedy) == (48, 12)
        assert p.phases["sampling"] == 60 * (2 * 2 * 4 * 30 * 4 + 4 * 4 * 10)
        assert p.memory["hidden states"] == 12 * (20 + 4 * 9 + 20 + 9) * 8 * 4
        assert plan(config(), POLICY, REWARD).round_greedy == 0
        with pytest.raises(UserError, match=r"4 \* 9 response tokens \+ 29 of the greedy response\) \* 8 \* 4"):
            plan(config({"advantage": "remax"}, run={"hidden_budget_gib": 1e-6}), POLICY, REWARD)

    def test_references_of_par(self) -> None:
        """M = 6 a query: sampled in a batch of their own, the larger one; with feedback their states, too."""
        par = {"shaping": "par", "par_references": 6}
        p = plan(config(reward=par), POLICY, REWARD)
        assert (p.round_trajectories, p.round_references) == (48, 72)
        assert p.phases["sampling"] == 72 * (2 * 2 * 4 * 30 * 4 + 4 * 4 * 10)
        assert p.memory["hidden states"] == 12 * (20 + 4 * 9 + 20 + 6 * 9) * 8 * 4
        plain, shaped = (plan(config(reward=r), POLICY, REWARD).time for r in ({}, par))
        assert plain is not None
        assert shaped is not None
        assert shaped.sampling == pytest.approx(plain.sampling * (4 + 6) / 4)
        assert plan(config(), POLICY, REWARD).round_references == 0
        with pytest.raises(UserError, match=r"4 \* 9 response tokens \+ 74 of PAR's references\) \* 8 \* 4"):
            plan(config(reward=par, run={"hidden_budget_gib": 1e-6}), POLICY, REWARD)

    def test_more_workers_divide_the_queries_and_not_the_policy(self) -> None:
        one, three = (plan(config(run={"workers": w}), POLICY, REWARD) for w in (1, 3))
        assert three.memory["hidden states"] * 3 == one.memory["hidden states"]
        for part in ("policy weights", "AdamW states", "reference", "reward model"):
            assert three.memory[part] == one.memory[part]
        assert three.round_trajectories == one.round_trajectories

    def test_hidden_states_can_wait_on_the_host(self) -> None:
        run = {"hidden_on_host": True, "device": "gpu"}
        p = plan(config(run=run), POLICY, REWARD)
        assert p.host == {"hidden states": 12 * (20 + 4 * 9) * 8 * 4}
        assert p.process == {"CUDA": CUDA}
        assert "hidden states" not in p.memory
        on_cpu = plan(config(run={"hidden_on_host": True}), POLICY, REWARD)
        assert (on_cpu.host, on_cpu.memory["hidden states"]) == ({}, p.host["hidden states"])

    @pytest.mark.parametrize(
        ("stored", "device", "mapped"),
        [
            ("float32", "cpu", {"reference", "reward model"}),
            ("bfloat16", "cpu", {"reward model"}),  # the policy's file is of another dtype: read, not mapped
            ("float32", "gpu", set()),
        ],
    )
    def test_what_processes_share(self, stored: str, device: str, mapped: set[str]) -> None:
        c = config(run={"device": device})
        assert plan(c, replace(POLICY, stored=stored), REWARD).mapped == mapped

    def test_a_context_ends_where_long_rope_would_begin(self) -> None:
        """Beyond it the longest sequence of a batch decides how all are read."""
        rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
        phi = shape_of(
            Phi3Config(
                vocab_size=50, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
                max_position_embeddings=1024, original_max_position_embeddings=64, rope_parameters=rope,
                pad_token_id=0,
            )
        )  # fmt: skip
        open_ended = {"kind": "text", "data": "rows.jsonl"}
        R = config().algorithm.max_response_tokens
        assert plan(config(task=open_ended), phi, REWARD).prompt_tokens == 64 - R
        with pytest.raises(UserError, match="at most the models' context of 64 tokens"):
            plan(config(task=open_ended | {"max_prompt_tokens": 65 - R}), phi, REWARD)

    def test_prompts_are_bounded_by_the_shorter_context(self) -> None:
        open_ended = {"kind": "text", "data": "rows.jsonl"}
        assert plan(config(task=open_ended), POLICY, replace(REWARD, context=64)).prompt_tokens == 54
        assert plan(config(), POLICY, REWARD).prompt_tokens == 20

    def test_a_policy_without_a_context(self) -> None:
        endless, open_ended = replace(POLICY, context=None), {"kind": "text", "data": "rows.jsonl"}
        assert plan(config(task=open_ended), endless, REWARD).prompt_tokens == 90
        assert plan(config(), endless, replace(REWARD, context=None)).prompt_tokens == 20

    def test_prompts_that_cannot_be_shared_run_with_each_response(self) -> None:
        """A microbatch of K = 4 has 4 (20 + 9) tokens run, not 20 + 4 * 9: 60 more, of 12 * 8 + 64 values in each of
        two layers. Where nothing is kept, sampling has a layer of all 48 * 30 tokens in place of keys and values."""
        shared, cached, rerun = (plan(config(), replace(POLICY, cache_use=way), REWARD) for way in CacheUse)
        for p in (cached, rerun):
            more = p.phases["policy update"] - shared.phases["policy update"]
            assert more == 60 * 2 * (12 * 8 + 64) * 4 - 4000  # no gradients wait for those of a shared prompt
            assert "can't be shared" in p.notes[0]
        assert not shared.notes
        assert cached.phases["sampling"] == shared.phases["sampling"]
        assert rerun.phases["sampling"] == 48 * 30 * (12 * 8 + 64) * 4 + 48 * 4 * 4 * 10

    def test_recurrent_states_are_kept_once_a_sequence(self) -> None:
        mamba = replace(POLICY, kv_values=0, state_values=70)
        assert plan(config(), mamba, REWARD).phases["sampling"] == 48 * (70 * 4 + 4 * 4 * 10)

    @pytest.mark.parametrize(
        ("run", "gpus", "device"),
        [("auto", 2, "gpu"), ("auto", 0, "cpu"), ("auto", None, "cpu"), ("cpu", 2, "cpu"), ("gpu", None, "gpu")],
    )
    def test_device(self, run: str, gpus: int | None, device: str) -> None:
        c = config(run={"device": run})
        assert resolve_device(c.run, gpus) == device
        assert plan(c, POLICY, REWARD, gpus=gpus).gpus == (1 if device == "gpu" else 0)

    @pytest.mark.parametrize(("gpus", "device"), [(2, "cpu"), (2.5, "cpu"), (3, "gpu"), (8, "gpu")])
    def test_auto_takes_gpus_if_each_worker_has_one(self, gpus: float, device: str) -> None:
        c = config(run={"device": "auto", "workers": 3})
        assert resolve_device(c.run, gpus) == device
        assert resolve_device(config(run={"device": "cpu", "workers": 3}).run, gpus) == "cpu"


class TestRefusals:
    def test_context(self) -> None:
        with pytest.raises(UserError, match=r"max_prompt_tokens = 20, .*max_response_tokens = 90: .* 100 tokens"):
            plan(config({"max_response_tokens": 90}), POLICY, REWARD)
        with pytest.raises(UserError, match="context of 25"):
            plan(config(), POLICY, replace(REWARD, context=25))
        plan(config({"max_response_tokens": 80}), POLICY, REWARD)

    def test_nothing_bounds_a_prompt(self) -> None:
        endless = replace(POLICY, context=None)
        with pytest.raises(UserError, match=r"^task\.max_prompt_tokens: set it: neither"):
            plan(config(task={"kind": "text", "data": "rows.jsonl"}), endless, endless)

    def test_hidden_budget_shows_its_arithmetic(self) -> None:
        size = 12 * (20 + 4 * 9) * 8 * 4
        plan(config(run={"hidden_budget_gib": size / GIB}), POLICY, REWARD)
        with pytest.raises(UserError, match=r"12 queries \* \(20 prompt \+ 4 \* 9 response tokens\) \* 8 \* 4"):
            plan(config(run={"hidden_budget_gib": (size - 1) / GIB}), POLICY, REWARD)

    def test_too_few_of_the_device(self) -> None:
        with pytest.raises(UserError, match=r"run.workers = 3: each takes a gpu, and there are 2"):
            plan(config(run={"workers": 3, "device": "gpu"}), POLICY, REWARD, gpus=2)
        with pytest.raises(UserError, match=r"run.workers = 3: each takes a cpu, and there are 2"):
            plan(config(run={"workers": 3, "device": "cpu"}), POLICY, REWARD, cpus=2, gpus=8)
        plan(config(run={"workers": 3, "device": "cpu"}), POLICY, REWARD, cpus=3)

    def test_8b_policy_on_an_80_gib_gpu_is_refused_with_the_truth(self) -> None:
        llama = shape_of(LlamaConfig(**LLAMA_8B))
        whole = ("policy.dtype=float32", "policy.sharding=none", "policy.offload=none", "rollout={}")
        c = load("ultrafeedback_llama3_8b", [*whole, "run.hidden_budget_gib=20"])
        with pytest.raises(UserError, match=r"29\.9 .* = 164\.\d GiB, and a gpu worker has 79\.2; .*not sharded"):
            plan(c, llama, replace(llama, parameters=7_504_928_768), gpus=8, worker_gib=79.2)

    def test_storage(self, tmp_path: Path) -> None:
        p = plan(config(), POLICY, REWARD)
        p.check_disk(tmp_path / "not" / "there" / "yet")
        with pytest.raises(UserError, match=r"3 checkpoints .* of 1,073,741,824\.0 GiB .* GiB are free"):
            replace(p, checkpoint=2**60).check_disk(tmp_path)


class TestAgainstTheRealThing:
    """Tiny models, whose allocations are counted."""

    TINY: dict[str, int] = {  # noqa: RUF012
        "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 3, "num_attention_heads": 4,
        "vocab_size": 50, "max_position_embeddings": 256,
    }  # fmt: skip
    N, K, P, R = 2, 4, 48, 24

    def trajectories(self) -> Trajectories:
        N, K, P, R = self.N, self.K, self.P, self.R
        return Trajectories(
            torch.randint(0, 50, (N, P)), torch.ones(N, P, dtype=torch.bool), torch.randint(0, 50, (N, K, R)),
            torch.ones(N, K, R, dtype=torch.bool), torch.zeros(N, K, R), torch.ones(N, K, dtype=torch.bool),
        )  # fmt: skip

    def plan(self, shape: Shape) -> Plan:
        N, K, P, R = self.N, self.K, self.P, self.R
        c = config(
            {"queries": N, "responses": K, "microbatch": N * K, "max_response_tokens": R},
            task={"kind": "text", "data": "rows.jsonl", "max_prompt_tokens": P},
        )
        return plan(c, shape, shape)

    def test_hidden_states(self) -> None:
        t = self.trajectories()
        model = AutoModelForCausalLM.from_config(LlamaConfig(**self.TINY)).eval()
        hidden = HiddenStates(t, torch.float32, "cpu")
        hidden.store(slice(None), slice(None), policy_forward(model, t, 1.0))
        tensors = [x for x in vars(hidden).values() if isinstance(x, torch.Tensor)]
        allocated = sum(x.nbytes for x in tensors if x.is_floating_point())
        assert self.plan(shape_of(model.config)).memory["hidden states"] == allocated == hidden.mib * 2**20

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize(
        "hf_config",
        [
            LlamaConfig(**TINY, num_key_value_heads=2),
            Qwen2Config(**TINY | {"intermediate_size": 352}, num_key_value_heads=1),
            GPTNeoXConfig(**TINY | {"intermediate_size": 256}),
        ],
        ids=["llama", "qwen2", "neox"],
    )
    def test_activations_are_estimated_within_a_third(self, hf_config: PreTrainedConfig, dtype: str) -> None:
        model = AutoModelForCausalLM.from_config(hf_config, dtype=getattr(torch, dtype)).eval()
        shape = shape_of(hf_config)
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        kept: dict[int, torch.Tensor] = {}

        def keep(x: torch.Tensor) -> torch.Tensor:
            kept[x.untyped_storage().data_ptr()] = x
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            policy_forward(model, self.trajectories(), 1.0)
        saved = sum(x.untyped_storage().nbytes() for ptr, x in kept.items() if ptr not in weights)
        c = config(
            {"queries": self.N, "responses": self.K, "microbatch": self.N * self.K, "max_response_tokens": self.R},
            task={"kind": "text", "data": "rows.jsonl", "max_prompt_tokens": self.P},
            policy={"model": "p", "dtype": dtype},
        )  # fmt: skip
        estimate = microbatch_bytes(c, shape, self.N * self.K, self.P, getattr(torch, dtype).itemsize)
        assert estimate == pytest.approx(saved, rel=1 / 3)

    def test_checkpoint(self) -> None:
        """Weights and AdamW states of policy and head, as they are written; step counts are beside the point."""
        hf_config = LlamaConfig(**self.TINY)
        p = self.plan(shape_of(hf_config))
        written = 0
        for module in (AutoModelForCausalLM.from_config(hf_config), FeedbackHead(64, 64, 4, 2, score_bias=True)):
            optimizer = torch.optim.AdamW(module.parameters())
            for parameter in module.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
            tensors = module_tensors("m", module) | optimizer_tensors("o", optimizer)
            written += sum(t.nbytes for t in tensors.values() if t.dim())
        assert p.checkpoint == pytest.approx(written, rel=1e-3)


def test_render_says_what_par_costs() -> None:
    out = StringIO()
    shaped = config(reward={"shaping": "par", "par_references": 2})
    Console(file=out, width=120).print(plan_table(plan(shaped, POLICY, REWARD)))
    assert "24 a round beside these, of the reference policy" in out.getvalue()


def test_render_says_what_remax_costs() -> None:
    out = StringIO()
    Console(file=out, width=120).print(plan_table(plan(config({"advantage": "remax"}), POLICY, REWARD)))
    assert "12 a round beside these, for ReMax's baseline" in " ".join(out.getvalue().split())


def test_render_says_what_matters() -> None:
    p = plan(config(policy={"model": "p", "dtype": "bfloat16"}), POLICY, REWARD)
    out = StringIO()
    Console(file=out, width=120).print(plan_table(p))
    text = " ".join(out.getvalue().split())
    for fact in ("48 a round, 480 in all, 20 of the budget left over", "t* = 10.0 rounds", "fp32 weights",
                 "3 checkpoints", "time, a guess", "50% of a CPU thread's peak"):  # fmt: skip
        assert fact in text
    assert asdict(p)["rounds"] == 10


@pytest.mark.parametrize(("size", "text"), [(0, "0.0 MiB"), (3 * 2**19, "1.5 MiB"), (5 * 2**29, "2.5 GiB")])
def test_human(size: int, text: str) -> None:
    assert human(size) == text
