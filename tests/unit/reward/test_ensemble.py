"""Ensembles and averaged weights, in whole rounds of tiny models.

Axes: N queries, K responses, M members.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from r2m.config import Config, load
from r2m.core.trajectories import Trajectories
from r2m.errors import UserError
from r2m.models.loading import load_tokenizer
from r2m.models.saving import save_model
from r2m.policy.queries import Query
from r2m.reward.ensemble import averaged
from r2m.reward.loading import load_reward_model
from r2m.reward.scoring import RewardEmbedder, end_token_rule
from r2m.stages.prepare import member_models
from r2m.training.plan import plan
from r2m.training.preflight import shapes_for
from r2m.training.trainer import Trainer

MakeConfig = Callable[..., Config]
MakeTrainer = Callable[..., Trainer]
OFF = "reward.feedback=off"


@pytest.fixture(scope="session")
def others(forum_models: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two further reward models, the first with every weight moved a little, centred otherwise."""
    folders = []
    for i, mean in ((1, 0.3), (2, -0.2)):
        model = AutoModelForSequenceClassification.from_pretrained(forum_models[1])
        torch.manual_seed(i)
        with torch.no_grad():
            for p in model.parameters():
                p += 0.1 * torch.randn_like(p)
        model.config.reward_mean = mean
        folders.append(str(tmp_path_factory.mktemp(f"member-{i}")))
        save_model(Path(folders[-1]), model, load_tokenizer(forum_models[1]))
    return folders


@pytest.fixture
def members(others: list[str]) -> str:
    return f"reward.members=[{', '.join(others)}]"


def scored(trainer: Trainer, folder: str, queries: Sequence[Query], t: Trajectories) -> Tensor:
    scorer = RewardEmbedder(load_reward_model(folder)[0], load_tokenizer(folder), trainer.tokenizer, 8)
    scores_NK = scorer.phi(scorer.embed(queries, t)).squeeze(-1).detach()
    return end_token_rule(scores_NK, t.ended_NK, trainer.config.reward)


@pytest.mark.parametrize(
    ("how", "arm"), [("mean", "RLOO + ensemble mean"), ("min", "RLOO + ensemble min"), ("uwo", "RLOO + UWO")]
)
def test_a_round_is_scored_by_all_and_told_the_vanilla_ones_own(
    make_trainer: MakeTrainer, forum_models: tuple[str, str], others: list[str], members: str, how: str, arm: str
) -> None:
    trainer = make_trainer(OFF, members, f"reward.ensemble={how}", "reward.uwo_lambda=2")
    assert trainer.config.arm == arm
    r = next(trainer.rounds(1))
    M = torch.stack([scored(trainer, f, r.queries, r.trajectories) for f in (forum_models[1], *others)])
    assert (M.std(0)[r.trajectories.ended_NK] > 1e-3).all()
    mean = M.sum(0) / 3
    expected = {"mean": mean, "min": M.amin(0), "uwo": mean - 2 * ((M - mean) ** 2).sum(0) / 3}[how]
    torch.testing.assert_close(r.scores_NK, expected)
    torch.testing.assert_close(r.vanilla_NK, M[0])
    figures = trainer.evaluate(1).metrics
    plain = make_trainer(OFF)
    t = trainer.sampler.held_out(trainer.held_out)
    plain.sampler.held_out = lambda *_, **__: t  # type: ignore[method-assign]
    assert figures["eval/vanilla"] == pytest.approx(plain.evaluate(1).metrics["eval/vanilla"], abs=1e-6)
    with torch.no_grad():
        proxy = trainer.reward.score(trainer.held_out, t, None, 1).scores_NK.mean()
    assert figures["eval/proxy"] == pytest.approx(float(proxy), abs=1e-6)


def test_warm_scores_by_the_mean_of_all_weights(
    make_trainer: MakeTrainer, forum_models: tuple[str, str], others: list[str], members: str, tmp_path: Path
) -> None:
    trainer = make_trainer(OFF, members, "reward.ensemble=warm")
    assert trainer.config.arm == "RLOO + WARM"
    everyone = [AutoModelForSequenceClassification.from_pretrained(f) for f in (forum_models[1], *others)]
    with torch.no_grad():
        for p, *own in zip(*(model.parameters() for model in everyone), strict=True):
            p.copy_((p + own[0] + own[1]) / 3)
    everyone[0].config.reward_mean = (0.1 + 0.3 - 0.2) / 3
    save_model(tmp_path / "mean", everyone[0], trainer.tokenizer)
    r = next(trainer.rounds(1))
    expected = scored(trainer, str(tmp_path / "mean"), r.queries, r.trajectories)
    torch.testing.assert_close(r.scores_NK, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(r.vanilla_NK, scored(trainer, forum_models[1], r.queries, r.trajectories))
    trainer.export(tmp_path)
    kept, _ = load_reward_model(str(tmp_path / "reward"))
    assert torch.equal(kept.phi.weight, trainer.reward_model.phi.weight)


def test_the_average_of_one_is_itself_and_files_stay_as_they_are(forum_models: tuple[str, str]) -> None:
    before = (Path(forum_models[1]) / "model.safetensors").read_bytes()
    one, again, twice = (load_reward_model(forum_models[1])[0] for _ in range(3))
    mean = averaged([one, again])
    for name, weight in twice.state_dict().items():
        torch.testing.assert_close(mean.state_dict()[name], weight, msg=name)
    assert (Path(forum_models[1]) / "model.safetensors").read_bytes() == before


def test_under_par_and_after_a_resume(make_trainer: MakeTrainer, members: str, tmp_path: Path) -> None:
    arm = (OFF, members, "reward.ensemble=min", "reward.shaping=par", "algorithm.rounds=2")
    whole, first, second = (make_trainer(*arm) for _ in range(3))
    assert whole.config.arm == "RLOO + ensemble min + PAR"
    *_, expected = whole.rounds(1)
    next(first.rounds(1))
    first.save(tmp_path, 1)
    assert second.restore(tmp_path, pytest.fail) == 1
    assert torch.equal(next(second.rounds(2)).scores_NK, expected.scores_NK)


def test_the_plan_counts_what_scores(make_config: MakeConfig, members: str) -> None:
    plans = {}
    for how in ("none", "uwo", "warm"):
        config = make_config(OFF, members, f"reward.ensemble={how}")
        plans[how] = plan(config, *shapes_for(config))
    one = plans["none"].memory["reward model"]
    assert "ensemble" not in plans["none"].memory
    assert (plans["uwo"].memory["ensemble"], plans["warm"].memory["ensemble"]) == (2 * one, one)
    assert "ensemble" in plans["uwo"].mapped
    assert "ensemble" not in plans["warm"].mapped  # their average is no file
    forwards = {how: p.time.forwards for how, p in plans.items() if p.time is not None}
    scoring = (forwards["warm"] - forwards["none"], forwards["uwo"] - forwards["none"])
    assert scoring[1] == pytest.approx(2 * scoring[0])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("reward.ensemble=uwo",),
            "ensemble = 'uwo': R2M's head reads the embedding of one reward model; feedback=off",
        ),
        ((OFF, "reward.ensemble=uwo"), "name the further reward models by members"),
        ((OFF, "reward.ensemble=uwo", "reward.members=[]"), "name the further reward models by members"),
        ((OFF, "reward.ensemble=mean", "reward.members=1"), "reward.members"),
        (
            (OFF, "reward.ensemble=mean", "reward.model=null", "reward.members=[a]"),
            "which is not named; of the task's",
        ),
        ((OFF, "reward.ensemble=warm", "reward.model=null", "reward.members_differ=sft"), "have no average of use"),
    ],
)
def test_what_has_no_ensemble(make_config: MakeConfig, overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_config(*overrides)


def test_members_that_are_not_there(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(OFF, "reward.ensemble=mean", f"reward.members=[{tmp_path / 'none'}]")
    with pytest.raises(UserError, match=r"reward.members = '.*none': no such folder"):
        shapes_for(config)


def test_a_name_is_of_exactly_what_determines_a_member() -> None:
    def names(*overrides: str) -> tuple[str, ...]:
        return member_models(load("forum", [OFF, "reward.ensemble=uwo", *overrides]))

    first = names()
    assert len({*first}) == 4
    assert names("reward.members=3") == first[:2]
    assert names("reward.ensemble=mean", "reward.uwo_lambda=3", "run.seed=4", "task.held_out=9") == first
    changed = ("reward.members_differ=data", "task.seed=1", "task.artefact=0.5", "task.rrm=0.1", "task.sft_steps=9")
    for override in changed:
        assert not {*names(override)} & {*first}, override
    assert member_models(load("forum")) == ()
