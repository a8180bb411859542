"""Which groups a judge labels, and that it is asked about nothing else."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from r2m.algorithm import train_head
from r2m.config import Reward, load
from r2m.core.trajectories import Trajectories
from r2m.errors import UserError
from r2m.policy.policy import states_of
from r2m.policy.queries import Query
from r2m.reward.labels import LabelledReward, taught_groups
from r2m.training.trainer import Trainer
from r2m.workers import Workers

MakeTrainer = Callable[..., Trainer]


@pytest.mark.parametrize("size", [1, 2])
def test_the_groups_are_the_same_on_any_number_of_workers(size: int) -> None:
    """Eight queries in two minibatches, of each the first two: of the round 0, 1 and 4, 5."""
    settings = Reward(labels=4, minibatches=2)
    taught = set()
    for rank in range(size):
        workers = Workers(rank, size)
        own = workers.own(8)
        taught |= {own[n] for groups in taught_groups(len(own), settings, workers) for n in groups}
    assert taught == {0, 1, 4, 5}


def test_without_labels_all_groups_teach() -> None:
    assert taught_groups(6, Reward(minibatches=2), Workers()) == [range(3), range(3, 6)]


def test_the_judge_is_asked_about_these_groups_alone(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("reward.labels=2", "reward.minibatches=2")
    asked: list[str] = []

    def judge(queries: Sequence[Query], t: Trajectories) -> Tensor:
        asked.extend(str(query.prompt.text) for query in queries)
        return trainer.gold(queries, t)

    labelled = trainer.reward
    assert isinstance(labelled, LabelledReward)
    labelled._judge = judge
    first, second, *_ = trainer.rounds(1)
    assert asked[:2] == [str(first.queries[n].prompt.text) for n in (0, 2)]
    assert len(asked) == 2 * trainer.config.algorithm.total_rounds
    assert [r.metrics["label/judgements"] for r in (first, second)] == [2, 4]


def test_another_reward_model_may_be_the_judge(make_trainer: MakeTrainer, forum_models: tuple[str, str]) -> None:
    trainer = make_trainer(f"run.judge={forum_models[1]}", "reward.labels=4")
    r = next(trainer.rounds(1))
    with torch.no_grad():
        states = states_of(trainer.policy, r.trajectories, trainer.config.algorithm, "cpu")
        scored = trainer.reward.score(r.queries, r.trajectories, states, 1)
    assert scored.labels_NK is not None
    raw_NK = trainer.reward_model.phi(scored.H_NKD).squeeze(
        -1
    )  # no rule for a missing end: the judge says what it says
    torch.testing.assert_close(scored.labels_NK, raw_NK.detach(), atol=1e-5, rtol=0)


def test_the_score_layer_learns_an_order_against_its_own(make_trainer: MakeTrainer) -> None:
    """RLOO with labels, its score layer taught the same groups again and again."""
    trainer = make_trainer("reward.omega_min=1", "reward.labels=4", "reward.alpha=0", "reward.lr=0.02")
    labelled, judged = trainer.reward, trainer.scorer
    assert isinstance(labelled, LabelledReward)
    labelled._judge = lambda queries, t: -judged.phi(judged.embed(queries, t)).squeeze(-1)
    queries = trainer._queries(1)
    t, _ = trainer.sampler(queries, 1)
    with torch.no_grad():
        states = states_of(trainer.policy, t, trainer.config.algorithm, "cpu")
        scored = labelled.score(queries, t, states, 1)
    losses = [train_head(labelled, scored, trainer.config.reward, 16, Workers(), 1)["head/bt"] for _ in range(60)]
    assert losses[0] > math.log(2)
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("reward.labels=2", "reward.feedback=off"), "reward: labels = 2 teach a head an order: feedback=on"),
        (("reward.labels=2", "reward.train_head=off"), "reward: labels = 2 teach"),
        (("reward.labels=2", "reward.alpha=1"), "reward: labels = 2 teach"),
        (("reward.labels=25",), "reward.labels = 25 must be .* at most algorithm.queries = 24"),
        (("reward.labels=3", "reward.minibatches=2"), "reward.labels = 3 must be a multiple of .* = 2"),
    ],
)
def test_labels_that_nothing_learns_from_are_refused(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        load("forum", overrides)


def test_a_text_task_needs_a_judge() -> None:
    with pytest.raises(UserError, match=r"reward.labels = 8: a text task has no gold; name the judge by run.judge"):
        load("smollm2_tldr", ["reward.labels=8", "run.judge=null"])
