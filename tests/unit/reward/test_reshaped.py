"""Rewards around another one, in whole rounds of tiny models: what trains the policy, what the head learns from, what
held-out prompts are scored by, after a resume, and on several workers.

Axes: N queries, K responses, M reference responses.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from r2m.config import Config, load
from r2m.core.trajectories import Trajectories
from r2m.errors import UserError
from r2m.policy.queries import Query
from r2m.reward.scoring import end_token_rule
from r2m.training.trainer import Trainer
from r2m.workers import Workers

MakeConfig = Callable[..., Config]
MakeTrainer = Callable[..., Trainer]

PAR = ("reward.shaping=par", "reward.par_references=3")
SHORT = ("reward.length_penalty=0.5", "reward.length_free=2")
ARMS = {
    "RLOO + PAR": (*PAR, "reward.feedback=off"),
    "R2M + PAR": PAR,
    "ReMax + PAR": (*PAR, "reward.feedback=off", "algorithm.advantage=remax"),
    "R2M+GRPO + length penalty": (*SHORT, "algorithm.advantage=grpo"),
    "RLOO + length penalty + PAR": (*PAR, *SHORT, "reward.feedback=off"),
}  # fmt: skip


def vanilla(trainer: Trainer, queries: Sequence[Query], t: Trajectories) -> Tensor:
    """NK, with the rule for a missing end token."""
    scores_NK = trainer.scorer.phi(trainer.scorer.embed(queries, t)).squeeze(-1).detach()
    return end_token_rule(scores_NK, t.ended_NK, trainer.config.reward)


@pytest.mark.parametrize("arm", ARMS)
def test_the_arm_says_it(make_config: MakeConfig, arm: str) -> None:
    assert make_config(*ARMS[arm]).arm == arm


def test_the_policy_is_trained_on_the_chance_to_be_preferred(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(*ARMS["RLOO + PAR"])
    r = list(zip(range(2), trainer.rounds(1), strict=False))[1][1]  # the policy is no longer the reference
    references = trainer.sampler.references(r.queries, 3)
    assert references.response_ids_NKR.shape[:2] == (4, 3)
    v_NK, ref_NM = r.vanilla_NK, vanilla(trainer, r.queries, references)
    expected = [[sum(1 / (1 + float(torch.exp(x - v))) for x in ref_NM[n]) / 3 for v in v_NK[n]] for n in range(4)]
    torch.testing.assert_close(r.scores_NK, torch.tensor(expected))
    assert r.metrics["reward/proxy"] == pytest.approx(float(torch.tensor(expected).mean()))
    assert r.metrics["reward/vanilla"] == pytest.approx(float(v_NK.mean()))


def test_references_are_the_references_own_and_the_same_at_every_call(make_trainer: MakeTrainer) -> None:
    """Whatever the policy has become, whoever else is asked, and in whatever order."""
    trainer, other = make_trainer(), make_trainer("run.seed=1")
    queries = trainer.train_queries[:4]
    before = trainer.sampler.references(queries, 3)
    list(trainer.rounds(1))
    after = trainer.sampler.references(queries[::-1], 3)
    for n in range(4):
        one, two = (x.block(slice(i, i + 1)) for x, i in ((before, n), (after, 3 - n)))
        assert torch.equal(one.response_ids_NKR, two.response_ids_NKR)
    assert not torch.equal(before.response_mask_NKR, other.sampler.references(queries, 3).response_mask_NKR)
    log_probs = trainer.policy.reference(before, 0.8).log_probs_NKR
    torch.testing.assert_close(before.sampler_log_probs_NKR, log_probs * before.response_mask_NKR, atol=1e-5, rtol=0)


def test_with_feedback_references_are_scored_with_feedback(make_trainer: MakeTrainer) -> None:
    """By the head as it is, from the policy's states of the reference's responses: at the start, where the policy is
    the reference, the references score what they would as the policy's own."""
    trainer = make_trainer(*PAR, "reward.no_eos=keep")
    assert trainer.head is not None
    with torch.no_grad():
        trainer.head.output.weight *= 30
        queries = trainer.train_queries[:4]
        t = trainer.sampler.references(queries, 3)
        inner = trainer.reward._inner  # type: ignore[attr-defined]
        hidden = trainer.reward._states(t)  # type: ignore[attr-defined]
        own = inner.score(queries, t, hidden, 3)
        got_NK = trainer.reward.score(queries, t, hidden, 3).scores_NK
    assert (own.scores_NK - own.vanilla_NK).abs().min() > 1e-4  # feedback does something
    gap_NKM = own.scores_NK[:, :, None] - own.scores_NK[:, None]
    torch.testing.assert_close(got_NK, torch.sigmoid(gap_NKM).mean(-1))


def test_the_head_learns_from_its_own_scores(make_trainer: MakeTrainer) -> None:
    """PAR keeps the order of a group, so R2M's pair and losses are those without it, up to what the policy's update
    does to h: none where nothing has been updated yet."""
    a, b = (make_trainer(*o, "algorithm.epochs=1", "algorithm.lr=1e-30") for o in ((), PAR))
    plain, par = (next(x.rounds(1)).metrics for x in (a, b))
    for key in ("head/bt", "head/gre", "head/grad_norm"):
        assert par[key] == pytest.approx(plain[key], rel=1e-5)
    assert par["reward/proxy"] != plain["reward/proxy"]


def test_a_length_penalty_is_off_the_score_of_each_token_beyond(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(*SHORT, "reward.feedback=off")
    r = next(trainer.rounds(1))
    over_NK = (r.trajectories.lengths_NK - 2).clamp(min=0)
    assert 0 < int(over_NK.count_nonzero()) < over_NK.numel()
    torch.testing.assert_close(r.scores_NK, r.vanilla_NK - 0.5 * over_NK)


@pytest.mark.parametrize("arm", ["RLOO + PAR", "R2M + PAR", "RLOO + length penalty + PAR"])
def test_held_out_the_proxy_is_reshaped_and_the_vanilla_is_not(make_trainer: MakeTrainer, arm: str) -> None:
    trainer, plain = (
        make_trainer(*ARMS[arm]),
        make_trainer(*ARMS[arm], "reward.shaping=none", "reward.length_penalty=0"),
    )
    figures, without = trainer.evaluate(1).metrics, plain.evaluate(1).metrics
    assert {key for key in figures if figures[key] != without[key]} == {"eval/proxy"}
    t = trainer.sampler.held_out(trainer.held_out)
    hidden = trainer.reward._states(t) if trainer.head is not None else None  # type: ignore[attr-defined]
    with torch.no_grad():
        expected = trainer.reward.score(trainer.held_out, t, hidden, 1).scores_NK.mean()
    assert figures["eval/proxy"] == pytest.approx(float(expected), abs=1e-6)
    assert trainer.evaluate(1) == trainer.evaluate(1)


@pytest.mark.parametrize("arm", ["R2M + PAR", "RLOO + length penalty + PAR"])
def test_a_run_goes_on_as_if_it_had_not_stopped(make_trainer: MakeTrainer, tmp_path: Path, arm: str) -> None:
    whole, first, second = (make_trainer(*ARMS[arm], "algorithm.rounds=2") for _ in range(3))
    *_, expected = whole.rounds(1)
    next(first.rounds(1))
    first.save(tmp_path, 1)
    assert second.restore(tmp_path, pytest.fail) == 1
    assert torch.equal(next(second.rounds(2)).scores_NK, expected.scores_NK)
    assert whole.evaluate(2).metrics["eval/proxy"] == second.evaluate(2).metrics["eval/proxy"]


@pytest.mark.parametrize("arm", ["RLOO + PAR", "R2M + PAR"])
def test_a_worker_scores_its_queries_as_one_alone_would(make_trainer: MakeTrainer, arm: str) -> None:
    class Apart(Workers):
        """One of two, as seen by it alone."""

        def sum(self, x: Tensor) -> Tensor:
            return x

    whole = next(make_trainer(*ARMS[arm]).rounds(1))
    for rank in (0, 1):
        part = make_trainer(*ARMS[arm], "run.workers=2", workers=Apart(rank, 2))
        queries, t = whole.queries[rank::2], whole.trajectories.block(slice(rank, None, 2))
        with torch.no_grad():
            hidden = part.reward._states(t) if part.head is not None else None  # type: ignore[attr-defined]
            scores_NK = part.reward.score(queries, t, hidden, 1).scores_NK
        torch.testing.assert_close(scores_NK, whole.scores_NK[rank::2], atol=1e-6, rtol=0)


def test_noise_is_an_ablation_of_r2m_alone(make_config: MakeConfig) -> None:
    with pytest.raises(
        UserError, match="hidden = 'noise': the ablation is of R2M alone, without shaping or length_p"
    ):
        make_config("reward.hidden=noise", *PAR, *SHORT)
    make_config("reward.hidden=noise", "reward.feedback=off", *PAR)


def test_people_s_own_models_and_prompts(text_recipe: Callable[..., str]) -> None:
    config = load(
        text_recipe([{"prompt": f"my {word} ."} for word in ("tv", "car", "bike", "lamp")] * 2), (*PAR, *SHORT)
    )
    trainer = Trainer(config, (str(config.policy.model), str(config.reward.model)), Workers())
    for r in trainer.rounds(1):
        assert 0 < r.scores_NK.min() < r.scores_NK.max() < 1
    assert 0 < trainer.evaluate(2).metrics["eval/proxy"] < 1
