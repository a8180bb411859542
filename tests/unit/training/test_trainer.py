"""One worker's state: what it measures of a round, saves, restores and exports."""

import copy
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma2Config, Lfm2Config, LlamaConfig, PreTrainedConfig

from r2m.algorithm import Round
from r2m.config import Config
from r2m.errors import UserError
from r2m.metrics import METRICS
from r2m.models.loading import load_tokenizer
from r2m.models.saving import save_model
from r2m.policy.loading import load_policy
from r2m.policy.queries import response_texts
from r2m.policy.state import module_tensors, optimizer_tensors
from r2m.reward.loading import load_reward_model
from r2m.tasks.forum import forum_tokenizer
from r2m.training.query_order import query_indices
from r2m.training.trainer import Trainer
from r2m.workers import Workers

GREEDY = {"reward/greedy", "rollout/greedy_tokens"}
MakeConfig = Callable[..., Config]
MakeTrainer = Callable[..., Trainer]


def state(trainer: Trainer) -> dict[str, Tensor]:
    tensors = trainer.policy.state()
    if trainer.head is not None:
        tensors |= module_tensors("head", trainer.head)
    if trainer.head_descent is not None:
        tensors |= optimizer_tensors("head_optimizer", trainer.head_descent.optimizer)
    return {name: t.detach().clone() for name, t in tensors.items()}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def refuse(reason: str) -> None:
    pytest.fail(f"refused: {reason}")


class TestPolicies:
    """Whole rounds of policies that are no plain Llamas, scored by a reward model of exactly the tokens."""

    @pytest.fixture
    def trained(self, make_config: MakeConfig, forum_models: tuple[str, str], tmp_path: Path) -> Callable[..., Round]:
        """Trains a policy of a config for two rounds; the second one."""

        def train(hf_config: PreTrainedConfig) -> Round:
            torch.manual_seed(0)
            save_model(tmp_path / "policy", AutoModelForCausalLM.from_config(hf_config), forum_tokenizer())
            policy = str(tmp_path / "policy")
            trainer = Trainer(make_config(f"policy.model={policy}"), (policy, forum_models[1]), Workers())
            first, second = itertools.islice(trainer.rounds(1), 2)
            assert all(math.isfinite(value) for value in trainer.evaluate(2).metrics.values())
            for r in (first, second):
                assert r.metrics["rollout/log_prob_error"] < 1e-3
                assert r.metrics["train/ratio_error_first_minibatch"] < 1e-4
                assert all(math.isfinite(value) for value in r.metrics.values())
            return second

        return train

    def small(self) -> dict[str, Any]:
        tokenizer = forum_tokenizer()
        return {
            "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 64, "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
        }  # fmt: skip

    def test_an_embedding_that_is_longer_than_the_vocabulary(self, trained: Callable[..., Round]) -> None:
        """Untrained, half of its rows have no token: without the mask half of the ids would be theirs, and the
        reward model, which has no row for them, would fail."""
        small = self.small()
        r = trained(LlamaConfig(**small | {"vocab_size": 2 * small["vocab_size"]}))
        assert r.trajectories.response_ids_NKR.max() < small["vocab_size"]

    def test_one_that_keeps_a_state(self, trained: Callable[..., Round]) -> None:
        trained(Lfm2Config(**self.small(), num_key_value_heads=2, layer_types=["conv", "full_attention"]))

    def test_one_that_caps_its_logits(self, trained: Callable[..., Round]) -> None:
        trained(Gemma2Config(**self.small(), num_key_value_heads=2, head_dim=8, final_logit_softcapping=2.0))


class TestMetrics:
    def test_an_evaluated_round_reports_all_that_is_defined_and_nothing_else(self, make_trainer: MakeTrainer) -> None:
        trainer = make_trainer()
        r = next(trainer.rounds(1))
        observed, _ = trainer.observe(r)
        reported = r.metrics | observed | trainer.evaluate(1).metrics
        by_the_loop = {"time/eval_s", "signal/kl_rate", "signal/rounds_apart"}
        defined = {key for key in METRICS if not key.startswith(("sweep/", "alarm/", "pipeline/", "label/"))}
        assert set(reported) == defined - by_the_loop - GREEDY - {"head/anchor"}
        assert len(reported) == len(r.metrics) + len(observed) + 10  # none is reported twice

    def test_remax_reports_its_greedy_responses_too(self, make_trainer: MakeTrainer) -> None:
        remax, r2m = (next(make_trainer(*o).rounds(1)).metrics for o in (("algorithm.advantage=remax",), ()))
        assert set(remax) - set(r2m) == GREEDY

    def test_rloo_reports_all_but_the_heads(self, make_trainer: MakeTrainer) -> None:
        r2m, rloo = (next(make_trainer(f"reward.feedback={on}").rounds(1)).metrics for on in ("on", "off"))
        of_the_head = {key for key in METRICS if key.startswith("head/")} - {"head/anchor"} | {
            "time/head_s",
            "memory/hidden_mib",
        }
        assert set(r2m) - set(rloo) == of_the_head
        assert set(rloo) < set(r2m)

    def test_task_measures_and_unique_share_are_of_the_texts(self, make_trainer: MakeTrainer) -> None:
        trainer = make_trainer()
        r = next(trainer.rounds(1))
        observed, _ = trainer.observe(r)
        texts = response_texts(trainer.tokenizer, r.queries, r.trajectories)
        groups = [texts[i : i + 4] for i in range(0, 16, 4)]
        assert observed["rollout/unique_share"] == pytest.approx(sum(len(set(g)) / 4 for g in groups) / 4)
        assert trainer.measures is not None
        prompts = [query.prompt for query in r.queries for _ in range(4)]
        expected = trainer.measures(prompts, texts)
        assert {k: observed[f"task/{k}"] for k in expected} == expected

    def test_samples_show_the_scores_of_their_texts(self, make_trainer: MakeTrainer) -> None:
        trainer = make_trainer("run.samples=5")
        r = next(trainer.rounds(1))
        _, samples = trainer.observe(r)
        texts = response_texts(trainer.tokenizer, r.queries, r.trajectories)
        assert [s["response"] for s in samples] == texts[0:15:3]
        assert [s["proxy"] for s in samples] == r.scores_NK.flatten()[0:15:3].tolist()
        assert samples[1]["prompt"] == r.queries[0].prompt.text
        assert samples[2]["prompt"] == r.queries[1].prompt.text
        json.dumps(samples)

    def test_more_samples_asked_for_than_there_are(self, make_trainer: MakeTrainer) -> None:
        trainer = make_trainer("run.samples=100")
        assert len(trainer.observe(next(trainer.rounds(1)))[1]) == 16


class TestQueries:
    def test_a_round_takes_those_of_the_data_order(self, make_trainer: MakeTrainer) -> None:
        trainer = make_trainer("run.seed=5")
        for r in trainer.rounds(1):
            expected = [trainer.train_queries[i] for i in query_indices(40, 4, r.step, 5)]
            assert r.queries == expected

    def test_seeds_differ_in_data_order_and_samples(self, make_trainer: MakeTrainer) -> None:
        a, b = (next(make_trainer(f"run.seed={seed}").rounds(1)) for seed in (0, 1))
        assert [q.ids for q in a.queries] != [q.ids for q in b.queries]
        assert a.trajectories.response_ids_NKR.tolist() != b.trajectories.response_ids_NKR.tolist()

    def test_held_out_prompts_are_equally_many_on_each_worker(self, make_trainer: MakeTrainer) -> None:
        parts = [make_trainer("run.eval_queries=7", workers=Workers(rank, 2)).held_out for rank in (0, 1)]
        assert [len(part) for part in parts] == [3, 3]
        whole = make_trainer("run.eval_queries=6").held_out
        assert [*parts[0], *parts[1]] == [*whole[0::2], *whole[1::2]]
        train = {q.prompt.text for q in make_trainer().train_queries}
        assert not train & {q.prompt.text for q in whole}


class TestState:
    def test_it_comes_back_whole(self, make_trainer: MakeTrainer, tmp_path: Path) -> None:
        trainer = make_trainer()
        for _ in zip(range(2), trainer.rounds(1), strict=False):
            pass
        trainer.save(tmp_path, 2)
        torch.rand(3)
        other = make_trainer()
        assert other.restore(tmp_path, refuse) == 2
        assert_equal(state(trainer), state(other))

    @pytest.mark.parametrize(
        "overrides",
        [
            ("reward.hidden=noise",),
            ("reward.train_head=off",),
            ("reward.labels=2",),
            ("reward.anchor=0.5",),
            ("algorithm.epochs=0", "reward.feedback=off"),
            ("algorithm.advantage=remax",),
            ("policy.dtype=bfloat16",),  # with the masters' digits, not the policy's
            ("policy.lora.rank=4",),
            ("policy.lora.rank=4", "policy.dtype=bfloat16"),
        ],
    )
    def test_a_run_goes_on_as_if_it_had_not_stopped(
        self, make_trainer: MakeTrainer, tmp_path: Path, overrides: tuple[str, ...]
    ) -> None:
        whole, first, second = (make_trainer(*overrides) for _ in range(3))
        expected = list(whole.rounds(1))
        for _ in zip(range(2), first.rounds(1), strict=False):
            pass
        first.save(tmp_path, 2)
        if second.head is not None:
            with torch.no_grad():
                second.head.output.weight.zero_()  # it comes from the checkpoint, trained or not
        assert second.restore(tmp_path, refuse) == 2
        for r, other in zip(expected[2:], second.rounds(3), strict=True):
            assert torch.equal(r.scores_NK, other.scores_NK)
        assert_equal(state(whole), state(second))
        assert whole.evaluate(4) == second.evaluate(4)

    def test_the_global_generator_comes_back(self, make_trainer: MakeTrainer, tmp_path: Path) -> None:
        trainer = make_trainer("reward.feedback=off")
        trainer.save(tmp_path, 1)
        expected = torch.rand(3)
        make_trainer("reward.feedback=off").restore(tmp_path, refuse)
        assert torch.equal(torch.rand(3), expected)

    def test_none_there_is_step_0(self, make_trainer: MakeTrainer, tmp_path: Path) -> None:
        assert make_trainer().restore(tmp_path / "none", refuse) == 0

    def test_that_of_another_configuration_is_refused(self, make_trainer: MakeTrainer, tmp_path: Path) -> None:
        make_trainer().save(tmp_path, 1)
        other = make_trainer("algorithm.lr=2e-3")
        before = copy.deepcopy(other.policy.model.state_dict())
        with pytest.raises(
            UserError, match=r"checkpoint .*: none is this run's: step-000001: of a run with config hash \w+, this"
        ):
            other.restore(tmp_path, lambda reason: None)
        assert_equal(before, other.policy.model.state_dict())

    def test_where_a_run_is_stored_is_not_its_configuration(self, make_trainer: MakeTrainer, tmp_path: Path) -> None:
        make_trainer().save(tmp_path, 1)
        moved = make_trainer("run.storage=/elsewhere", "run.tracking_uri=http://127.0.0.1:1")
        assert moved.restore(tmp_path, refuse) == 1

    def test_its_facts(self, make_trainer: MakeTrainer, tmp_path: Path) -> None:
        trainer = make_trainer("run.seed=3")
        trainer.save(tmp_path, 2)
        facts = json.loads((tmp_path / "step-000002" / "manifest.json").read_text())
        assert (facts["step"], facts["total_rounds"], facts["cursor"], facts["seed"]) == (2, 4, 8, 3)
        assert facts["config_hash"] == trainer.config.digest()


class TestExport:
    def test_folders_that_hugging_face_loads(
        self, make_trainer: MakeTrainer, make_config: MakeConfig, tmp_path: Path
    ) -> None:
        trainer = make_trainer()
        for _ in zip(range(1), trainer.rounds(1), strict=False):
            pass
        trainer.export(tmp_path)
        policy, (reward, head) = (load_policy(str(tmp_path / "policy")), load_reward_model(str(tmp_path / "reward")))
        assert_equal(trainer.policy.model.state_dict(), policy.state_dict())
        assert_equal(trainer.reward_model.state_dict(), reward.state_dict())
        assert trainer.head is not None
        assert head is not None
        assert_equal(trainer.head.state_dict(), head.state_dict())
        for part in ("policy", "reward"):
            tokenizer = load_tokenizer(str(tmp_path / part))
            assert tokenizer("my tv").input_ids == trainer.tokenizer("my tv").input_ids
        # A run that starts from them takes up the trained head, not a new one.
        again = Trainer(make_config(), (str(tmp_path / "policy"), str(tmp_path / "reward")), Workers())
        assert again.head is not None
        assert_equal(trainer.head.state_dict(), again.head.state_dict())

    def test_rloo_has_no_head_to_leave(self, make_trainer: MakeTrainer, tmp_path: Path) -> None:
        make_trainer("reward.feedback=off").export(tmp_path)
        assert load_reward_model(str(tmp_path / "reward"))[1] is None
