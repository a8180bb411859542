"""With vLLM itself: its log-probs are the trainer's after every update, and a run survives its engine.

Axes: V vocabulary.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
import torch
from engine_here import HOLES, EngineHere

from r2m.config import Config
from r2m.policy.output import own_logits, vocabulary
from r2m.policy.sampling import OwnSampler
from r2m.policy.vllm_sampler import Request, StaleWeightsError, VllmSampler
from r2m.runs.journal import read
from r2m.training.driver import execute
from r2m.training.start import new_run
from r2m.training.trainer import Trainer
from r2m.workers import Workers

MakeModels = Callable[..., tuple[str, str]]
MakeConfig = Callable[..., Config]
MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def make_trainer(make_models: MakeModels, make_config: MakeConfig) -> MakeTrainer:
    def make(*overrides: str, family: str = "qwen2", tied: bool = True) -> Trainer:
        models = make_models(family, tied)
        return Trainer(make_config(models, *overrides), models, Workers(), start_engine=EngineHere)

    return make


def engine_of(trainer: Trainer) -> EngineHere:
    assert isinstance(trainer.sampler, VllmSampler)
    engine: Any = trainer.sampler._engine
    return engine


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_log_probs_are_the_trainers_after_each_update(make_trainer: MakeTrainer, family: str, tied: bool) -> None:
    """Rounds of R2M. Rounds 2 to 4 sample after an update each, whose size shows in the policy's KL to its start."""
    trainer = make_trainer(family=family, tied=tied)
    for r in trainer.rounds(1):
        assert r.metrics["rollout/log_prob_error"] < 1e-3
        assert r.metrics["rollout/log_prob_error_mean"] <= r.metrics["rollout/log_prob_error"]
        assert all(value == value for value in r.metrics.values())
        assert int(r.trajectories.response_ids_NKR.max()) < vocabulary(trainer.policy.model) - HOLES
        if r.step > 1:
            assert abs(r.metrics["kl/sequence"]) > 2e-3  # what stale weights would be off by
        if r.step % 2 == 0:
            assert 0 <= trainer.evaluate(r.step).metrics["eval/win_rate"] <= 1  # against the weights before training


def test_responses(make_trainer: MakeTrainer) -> None:
    """The same at every call, others in another round; the likeliest are `own`'s; drawn as the policy has it."""
    trainer = make_trainer("algorithm.advantage=remax", "reward.feedback=off")
    queries = trainer._queries(1)
    first, again = trainer.sampler(queries, 1), trainer.sampler(queries, 1)
    torch.testing.assert_close(first.trajectories.response_ids_NKR, again.trajectories.response_ids_NKR)
    c = trainer.config
    own = OwnSampler(trainer.policy, trainer.tokenizer, c.algorithm, Workers(), greedy=True, seed=0, eval_seed=0)
    likeliest = own(queries, 1).greedy
    assert first.greedy is not None
    assert likeliest is not None
    torch.testing.assert_close(first.greedy.response_ids_NKR, likeliest.response_ids_NKR)

    prompt = queries[0].ids
    _, written = engine_of(trainer).write([Request(prompt, seed) for seed in range(1000)])
    model = trainer.policy.model
    with torch.no_grad():
        hidden = model.model(torch.tensor([prompt])).last_hidden_state[0, -1:]
        logits_V = own_logits(model, hidden)[0] / c.algorithm.temperature
    logits_V[-HOLES:] = -torch.inf
    p_V = logits_V.softmax(-1)
    share_V = torch.bincount(torch.tensor([w.ids[0] for w in written]), minlength=len(p_V)) / 1000
    assert ((share_V - p_V).abs() <= 5 * (p_V * (1 - p_V) / 1000).sqrt() + 1e-9).all()

    trainer.sampler.weights_changed(1)
    assert trainer.sampler(queries, 2).trajectories.response_ids_NKR.tolist() != (
        first.trajectories.response_ids_NKR.tolist()
    )


def test_a_skipped_update_is_caught(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    queries, engine = trainer._queries(1), engine_of(trainer)
    trainer.sampler(queries, 1)
    with pytest.raises(StaleWeightsError, match="round 2 samples from the weights after round 1"):
        trainer.sampler(queries, 2)  # nobody told of an update

    trainer.sampler.weights_changed(1)
    load, engine.load = engine.load, lambda weights, version: None  # type: ignore[method-assign]
    with pytest.raises(StaleWeightsError, match="vLLM wrote by weights of version 0; the policy's are of 1"):
        trainer.sampler(queries, 2)

    trainer.sampler.weights_changed(2)
    engine.load = lambda weights, version: load(  # type: ignore[method-assign]
        (pair for pair in weights if "layers.1.mlp.down_proj" not in pair[0]), version
    )
    with pytest.raises(RuntimeError, match=r"1 of vLLM's weights have not come, model\.layers\.1\.mlp\.down_proj"):
        trainer.sampler(queries, 3)


def test_a_killed_engine_comes_back(make_models: MakeModels, make_config: MakeConfig) -> None:
    """In Ray's workers, by the worker loop: the run goes on, with the weights that it had."""
    models = make_models("qwen2", True)
    run = new_run(make_config(models, "algorithm.rounds=5", "run.sample_every=1"), "killed")
    killed: list[int] = []

    def kill() -> None:
        while not read(run.journal).rounds:
            time.sleep(0.05)
        engines = [p for p in psutil.Process().children(recursive=True) if "VllmEngine" in " ".join(p.cmdline())]
        killed.extend(p.pid for p in engines)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    execute([run])
    killer.join()
    assert len(killed) == 1
    view = read(run.journal)
    assert view.status == "finished"
    assert [event["name"] for event in view.events].count("engine-restarted") == 1
    assert list(view.rounds) == [1, 2, 3, 4, 5]
    assert max(metrics["rollout/log_prob_error"] for metrics in view.rounds.values()) < 1e-3
