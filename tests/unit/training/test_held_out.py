"""Evaluation on held-out prompts: the same whenever asked, and without a trace in training."""

from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from r2m.config import Config
from r2m.core.schedule import omega
from r2m.core.trajectories import Trajectories
from r2m.policy.sampler import HELD_OUT_STREAM, sample, uniform_draws
from r2m.reward.loading import HEAD_FILE
from r2m.runs.journal import read
from r2m.training.loop import run_loop
from r2m.training.start import new_run
from r2m.training.trainer import Trainer

MakeTrainer = Callable[..., Trainer]

FIGURES = {
    "eval/gold",
    "eval/win_rate",
    "eval/proxy",
    "eval/vanilla",
    "eval/noise",
    "eval/kl_sequence",
    "eval/response_tokens",
    "signal/above_seen",
    "signal/hidden_distance",
    "signal/text_drift",
}


def drawn(trainer: Trainer, model: PreTrainedModel, ids: list[int], uniforms_R: torch.Tensor) -> Trajectories:
    """The response to one prompt that these draws give."""
    eos = trainer.tokenizer.eos_token_id
    return sample(
        model, [ids], uniforms_R[None], temperature=trainer.config.algorithm.temperature, eos_ids=[eos], pad_id=0
    )


def test_it_repeats_itself(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    first = trainer.evaluate(1)
    assert set(first.metrics) == FIGURES
    assert first == trainer.evaluate(1)


def test_it_changes_nothing_in_training(make_trainer: MakeTrainer) -> None:
    asked, left_alone = make_trainer(), make_trainer()
    for a, b in zip(asked.rounds(1), left_alone.rounds(1), strict=True):
        asked.evaluate(a.step)
        assert torch.equal(a.trajectories.response_ids_NKR, b.trajectories.response_ids_NKR)
    for p, q in zip(asked.policy.model.parameters(), left_alone.policy.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_untrained_the_policy_is_the_reference(make_trainer: MakeTrainer) -> None:
    assert make_trainer().evaluate(1).metrics["eval/kl_sequence"] == pytest.approx(0, abs=1e-6)


def test_trained_it_is_not(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    for _ in trainer.rounds(1):
        pass
    assert abs(trainer.evaluate(4).metrics["eval/kl_sequence"]) > 1e-3


def test_the_proxy_is_the_score_that_would_train_the_policy_now(make_trainer: MakeTrainer) -> None:
    """One held-out query at a time, by the head itself: the feedback of the policy as it is now, ω of the step."""
    trainer = make_trainer("reward.no_eos=keep")
    assert trainer.head is not None
    with torch.no_grad():
        trainer.head.output.weight *= 30
    figures = trainer.evaluate(3).metrics
    R, proxies, vanillas = 8, [], []
    draws = uniform_draws(0, 0, len(trainer.held_out), 1, R, stream=HELD_OUT_STREAM)
    for query, u in zip(trainer.held_out, draws, strict=True):
        t = drawn(trainer, trainer.policy.model, query.ids, u)
        response = t.response_ids_NKR[0, 0, : int(t.lengths_NK)].tolist()
        ids = torch.tensor([query.ids + response])
        with torch.no_grad():
            h_1SD = trainer.policy.model(ids, output_hidden_states=True).hidden_states[-1][:, :-1]
            H_1D = trainer.reward_model.embed(ids, torch.ones_like(ids, dtype=torch.bool))
            mask = torch.ones(h_1SD.shape[:2], dtype=torch.bool)
            proxies.append(float(trainer.head(H_1D, h_1SD, mask, omega(3, 4, 0.0))))
            vanillas.append(float(trainer.reward_model.phi(H_1D)))
    assert figures["eval/proxy"] == pytest.approx(sum(proxies) / len(proxies), rel=1e-5, abs=1e-5)
    assert figures["eval/vanilla"] == pytest.approx(sum(vanillas) / len(vanillas), rel=1e-5, abs=1e-5)
    assert abs(figures["eval/proxy"] - figures["eval/vanilla"]) > 1e-3


def test_without_feedback_the_proxy_is_the_frozen_model(make_trainer: MakeTrainer) -> None:
    figures = make_trainer("reward.feedback=off").evaluate(1).metrics
    assert figures["eval/proxy"] == figures["eval/vanilla"]


def test_runs_of_any_seed_are_evaluated_on_the_same_draws(make_trainer: MakeTrainer) -> None:
    first, other = make_trainer("run.seed=1").evaluate(1).metrics, make_trainer("run.seed=2").evaluate(1).metrics
    assert first["eval/gold"] == other["eval/gold"]
    assert make_trainer("run.eval_seed=3").evaluate(1).metrics["eval/vanilla"] != first["eval/vanilla"]


@pytest.mark.parametrize("judge", ["gold", "model"])
def test_the_win_rate_is_the_share_of_prompts_that_the_judge_gives_to_the_policy(
    make_trainer: MakeTrainer, forum_models: tuple[str, str], judge: str
) -> None:
    trainer = make_trainer(*([f"run.judge={forum_models[1]}"] if judge == "model" else []))
    assert trainer.evaluate(1).metrics["eval/win_rate"] == 0.5  # the same responses: ties
    with torch.no_grad():
        weight = trainer.policy.model.get_output_embeddings().weight
        weight += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    said = trainer.evaluate(2).metrics["eval/win_rate"]
    queries, wins = trainer.held_out, []
    draws = uniform_draws(0, 0, len(queries), 1, 8, stream=HELD_OUT_STREAM)
    for query, u in zip(queries, draws, strict=True):
        mine, its = (
            drawn(trainer, model, query.ids, u) for model in (trainer.policy.model, trainer.policy.reference_model)
        )
        if judge == "gold":
            a, b = float(trainer.gold([query], mine)), float(trainer.gold([query], its))
        else:
            scores = [trainer.scorer.phi(trainer.scorer.embed([query], t)) for t in (mine, its)]
            a, b = map(float, scores)
        wins.append(1.0 if a > b else 0.5 if a == b else 0.0)
    assert said == sum(wins) / len(wins)
    assert said != 0.5


class TestSignals:
    def test_untrained_there_is_neither_drift_nor_distance(self, make_trainer: MakeTrainer) -> None:
        metrics = make_trainer().evaluate(1).metrics
        assert metrics["signal/text_drift"] == 0
        assert metrics["signal/hidden_distance"] == pytest.approx(0, abs=1e-9)

    def test_the_distance_is_of_the_mean_states_that_predict_the_responses(self, make_trainer: MakeTrainer) -> None:
        """One held-out query at a time, each model by itself."""
        trainer = make_trainer("algorithm.epochs=4")
        for _ in trainer.rounds(1):
            pass
        draws = uniform_draws(0, 0, len(trainer.held_out), 1, 8, stream=HELD_OUT_STREAM)
        models = trainer.policy.model, trainer.policy.reference_model
        states: list[list[torch.Tensor]] = [[], []]
        for query, u in zip(trainer.held_out, draws, strict=True):
            t = drawn(trainer, models[0], query.ids, u)
            ids = torch.tensor([query.ids + t.response_ids_NKR[0, 0, : int(t.lengths_NK)].tolist()])
            for model, found in zip(models, states, strict=True):
                with torch.no_grad():
                    h_SD = model(ids, output_hidden_states=True).hidden_states[-1][0]
                found.append(h_SD[len(query.ids) - 1 : -1])
        means = [torch.cat(found).double().mean(0) for found in states]
        metrics = trainer.evaluate(4).metrics
        expected = float(1 - torch.cosine_similarity(*means, dim=0))
        assert metrics["signal/hidden_distance"] == pytest.approx(expected, rel=1e-3)
        assert expected > 1e-6

    def test_above_seen_is_the_share_by_the_models_own_score(self, make_trainer: MakeTrainer) -> None:
        """Kept or replaced for want of an end token, the score is the same."""
        for no_eos in ("keep", "replace"):
            trainer = make_trainer(f"reward.no_eos={no_eos}")
            scores_N = trainer.scorer.phi(
                trainer.scorer.embed(trainer.held_out, trainer.sampler.held_out(trainer.held_out))
            ).flatten()
            trainer.reward_model.seen = float(scores_N.sort().values[5])
            assert trainer.evaluate(1).metrics["signal/above_seen"] == 2 / 8

    def test_a_model_that_says_not_how_high_its_data_scored_has_none_above_it(
        self, make_trainer: MakeTrainer
    ) -> None:
        trainer = make_trainer()
        assert trainer.reward_model.seen == 0.2
        trainer.reward_model.seen = None
        assert "signal/above_seen" not in trainer.evaluate(1).metrics


def test_judgements_are_the_judges_scores_in_the_order_of_the_prompts(
    make_trainer: MakeTrainer, forum_models: tuple[str, str]
) -> None:
    by_gold, by_model = make_trainer(), make_trainer(f"run.judge={forum_models[1]}")
    t = by_gold.sampler.held_out(by_gold.held_out)
    assert by_gold.evaluate(1).judged == by_gold.gold(by_gold.held_out, t).flatten().tolist()
    scores_N = by_model.scorer.phi(by_model.scorer.embed(by_model.held_out, t)).flatten()
    assert by_model.evaluate(1).judged == scores_N.tolist()


class TestNoise:
    """Fig. 4: the same batch, with noise in the feedback's place."""

    def test_it_is_what_the_noise_arm_would_be_scored_with(self, make_trainer: MakeTrainer) -> None:
        policy, noise = (
            make_trainer("reward.no_eos=keep"),
            make_trainer("reward.no_eos=keep", "reward.hidden=noise"),
        )
        for trainer in (policy, noise):
            assert trainer.head is not None
            with torch.no_grad():
                trainer.head.output.weight *= 30
        with_feedback, with_noise = policy.evaluate(3).metrics, noise.evaluate(3).metrics
        assert with_feedback["eval/noise"] == with_noise["eval/proxy"]
        assert abs(with_feedback["eval/noise"] - with_feedback["eval/proxy"]) > 1e-3
        assert "eval/noise" not in with_noise

    def test_there_is_none_without_a_head(self, make_trainer: MakeTrainer) -> None:
        assert "eval/noise" not in make_trainer("reward.feedback=off").evaluate(1).metrics

    def test_at_full_weight_of_the_frozen_embedding_all_conditions_agree(self, make_trainer: MakeTrainer) -> None:
        figures = make_trainer("reward.omega_min=1.0").evaluate(3).metrics
        assert figures["eval/noise"] == figures["eval/proxy"] == pytest.approx(figures["eval/vanilla"])


def test_a_run_that_is_evaluated_every_round_is_the_run_that_never_is(make_config: Callable[..., Config]) -> None:
    journals, weights = [], []
    for every in (1, 0):
        run = new_run(make_config(f"run.eval_every={every}"), f"every-{every}")
        run_loop(run.config, run.folder, run.models)
        rounds = read(run.journal).rounds
        own = ("eval/", "signal/", "alarm/", "time/", "speed/", "memory/")
        journals.append({step: {k: v for k, v in m.items() if not k.startswith(own)} for step, m in rounds.items()})
        weights.append([load_file(run.folder / f) for f in ("policy/model.safetensors", f"reward/{HEAD_FILE}")])
        assert all(("eval/noise" in m) == bool(every) for m in rounds.values())
    assert journals[0] == journals[1]
    assert len(journals[0]) == 4
    for a, b in zip(*weights, strict=True):
        assert a.keys() == b.keys()
        assert [name for name in a if not torch.equal(a[name], b[name])] == []
