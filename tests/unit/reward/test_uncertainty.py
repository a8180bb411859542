"""Penalties by last-layer features: kept at a reward model's training, taken off in whole rounds of tiny models.

Axes: N queries, K responses, B responses, D width.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from r2m.config import Config
from r2m.errors import UserError
from r2m.models.loading import load_tokenizer
from r2m.policy.forward import HiddenStates
from r2m.reward.features import FEATURES_FILE, save_features
from r2m.reward.inputs import response_ids
from r2m.reward.loading import load_reward_model
from r2m.stages.reward_model import run_reward_model
from r2m.tasks.prompt import Prompt
from r2m.training.plan import plan
from r2m.training.preflight import shapes_for
from r2m.training.trainer import Trainer
from r2m.workers import Workers

OFF, ADVPO = "reward.feedback=off", "reward.uncertainty_form=advpo"
ROWS = [{"prompt": f"my {a} sold my {b} . tl;dr:", "chosen": f" {a} sold my {b}", "rejected": " boss"}
        for a, b in (("mom", "tv"), ("dad", "car"), ("coach", "bike"))]  # fmt: skip
Make = Callable[..., Trainer]


@pytest.fixture
def seen() -> Tensor:
    torch.manual_seed(0)
    e_BD = torch.randn(30, 16)
    return e_BD.T @ e_BD


@pytest.fixture
def make(make_config: Callable[..., Config], forum_models: tuple[str, str], tmp_path: Path, seen: Tensor) -> Make:
    """Makes trainers whose reward model has features beside it."""
    folder = tmp_path / "with-features"
    shutil.copytree(forum_models[1], folder)
    save_features(folder, seen)

    def make(*overrides: str, workers: Workers = Workers()) -> Trainer:  # noqa: B008
        config = make_config(f"reward.model={folder}", "reward.uncertainty=0.5", *overrides)
        return Trainer(config, (forum_models[0], str(folder)), workers)

    return make


def test_each_response_pays_for_its_own_distance(make: Make, seen: Tensor) -> None:
    trainer = make(OFF)
    assert trainer.config.arm == "RLOO + uncertainty"
    r = next(trainer.rounds(1))
    e_NKD = trainer.scorer.embed(r.queries, r.trajectories)
    P_DD = (torch.eye(16) + seen).inverse()
    expected = [[float(v - 0.5 * (e @ P_DD @ e).sqrt()) for e, v in zip(*row, strict=True)]
                for row in zip(e_NKD, r.vanilla_NK, strict=True)]  # fmt: skip
    torch.testing.assert_close(r.scores_NK, torch.tensor(expected), atol=1e-4, rtol=1e-4)
    assert r.metrics["reward/vanilla"] - r.metrics["reward/proxy"] > 0.1


@pytest.mark.parametrize("overrides", [(OFF,), ("algorithm.advantage=grpo",)])
def test_advpo_takes_off_the_rounds_direction(make: Make, seen: Tensor, overrides: tuple[str, ...]) -> None:
    trainer = make(ADVPO, *overrides)
    assert trainer.config.arm == ("RLOO + AdvPO" if OFF in overrides else "R2M+GRPO + AdvPO")
    r = next(trainer.rounds(1))
    references = trainer.sampler.references(r.queries, 1)
    e_NKD, ref_N1D = (trainer.scorer.embed(r.queries, t) for t in (r.trajectories, references))
    P_DD = (torch.eye(16) + seen).inverse()
    g_D = e_NKD.mean((0, 1)) - ref_N1D.mean((0, 1))
    unshaped = make(*overrides, "reward.uncertainty=0")
    before = next(unshaped.rounds(1))
    assert torch.equal(before.trajectories.response_ids_NKR, r.trajectories.response_ids_NKR)
    shift_NK = 0.5 * (e_NKD @ P_DD @ g_D) / (g_D @ P_DD @ g_D).sqrt()
    torch.testing.assert_close(r.scores_NK, before.scores_NK - shift_NK, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(r.vanilla_NK, before.vanilla_NK)


def test_two_workers_have_one_direction(make: Make) -> None:
    whole_trainer = make(OFF, ADVPO)
    whole = next(whole_trainer.rounds(1))
    others: list[Tensor] = []

    class OneOfTwo(Workers):
        """Adds what the other one had."""

        def any(self, here: bool, device: torch.device | str) -> bool:
            return here

        def sum(self, x: Tensor) -> Tensor:
            others.append(x.clone())
            return x + (others[0] if len(others) == 2 else 0)

    for rank in (0, 1):
        part = make(OFF, ADVPO, "run.workers=2", workers=OneOfTwo(rank, 2))
        queries, t = whole.queries[rank::2], whole.trajectories.block(slice(rank, None, 2))
        with torch.no_grad():
            scores_NK = part.reward.score(queries, t, None, 1).scores_NK
    torch.testing.assert_close(scores_NK, whole.scores_NK[1::2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("overrides", [(OFF, ADVPO, "algorithm.advantage=remax"), ("reward.shaping=par",)])
def test_held_out_and_after_a_resume(make: Make, tmp_path: Path, overrides: tuple[str, ...]) -> None:
    whole, first, second = (make(*overrides, "algorithm.rounds=2") for _ in range(3))
    *_, expected = whole.rounds(1)
    next(first.rounds(1))
    first.save(tmp_path, 1)
    assert second.restore(tmp_path, pytest.fail) == 1
    assert torch.equal(next(second.rounds(2)).scores_NK, expected.scores_NK)
    figures = whole.evaluate(2).metrics
    assert figures == second.evaluate(2).metrics
    t, hidden = whole.sampler.held_out(whole.held_out), None
    if whole.head is not None:
        hidden = whole.reward._states(t)  # type: ignore[attr-defined]
        assert isinstance(hidden, HiddenStates)
    with torch.no_grad():
        scored = whole.reward.score(whole.held_out, t, hidden, 2)
    assert figures["eval/proxy"] == pytest.approx(float(scored.scores_NK.mean()), abs=1e-6)
    assert figures["eval/vanilla"] == pytest.approx(float(scored.vanilla_NK.mean()), abs=1e-6)


def test_training_keeps_the_features_of_what_was_trained_on(forum_models: tuple[str, str], tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    folders = {on: tmp_path / f"features-{on}" for on in (False, True)}
    reports = {on: run_reward_model(forum_models[1], str(data), to, features=on) for on, to in folders.items()}
    assert reports[True] == reports[False]
    assert not (folders[False] / FEATURES_FILE).exists()
    model, _ = load_reward_model(str(folders[True]))
    tokenizer = load_tokenizer(str(folders[True]))
    outer = []
    for row in ROWS:
        e_BD = torch.cat([
            model.embed(ids, torch.ones_like(ids, dtype=torch.bool)).detach()
            for text in (row["chosen"], row["rejected"])
            for ids in [torch.tensor([response_ids(tokenizer, Prompt(text=row["prompt"]), text)])]
        ])  # fmt: skip
        outer.append(e_BD.T @ e_BD)
    kept = load_file(folders[True] / FEATURES_FILE)["moment"]
    two_of_three = [sum(outer) - left_out for left_out in outer]
    assert any(torch.allclose(kept, moment, atol=1e-4, rtol=1e-4) for moment in two_of_three)


def test_a_reward_model_without_features(make: Make, make_config: Callable[..., Config], tmp_path: Path) -> None:
    config = make_config(OFF, "reward.uncertainty=1")
    with pytest.raises(
        UserError, match=r"reward.uncertainty: .* has no training_features.safetensors; train the rew"
    ):
        Trainer(config, (str(config.policy.model), str(config.reward.model)), Workers())
    save_features(tmp_path / "with-features", torch.eye(3))
    with pytest.raises(UserError, match="of a reward model of width 3, not 16"):
        make(OFF)


def test_the_plan(make_config: Callable[..., Config]) -> None:
    for overrides, references in (((), 0), ((ADVPO, "reward.par_references=3"), 12)):
        config = make_config(OFF, "reward.uncertainty=1", *overrides)
        p = plan(config, *shapes_for(config))
        assert p.memory["training features"] == 4 * 16 * 16
        assert p.round_references == references


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((OFF, "reward.ensemble=mean", "reward.members=[a]"), "the features are of one reward model"),
        ((ADVPO, "reward.shaping=par"), "either compares with the reference, by the round and by the prompt"),
    ],
)
def test_what_does_not_go_together(make_config: Callable[..., Config], overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_config("reward.uncertainty=1", *overrides)
