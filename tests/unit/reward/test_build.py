"""The head that a run starts with."""

import copy
from collections.abc import Callable

import pytest
import torch

from r2m.errors import UserError
from r2m.reward.build import build_reward
from r2m.training.trainer import Trainer
from r2m.workers import Workers

MakeTrainer = Callable[..., Trainer]


def test_the_untrained_attention_is_as_strong_as_the_setting_says(make_trainer: MakeTrainer) -> None:
    weak, strong = (make_trainer(f"reward.head_gain={gain}").head for gain in (0.02, 1.0))
    assert weak is not None
    assert strong is not None
    torch.testing.assert_close(strong.output.weight, 50 * weak.output.weight)
    assert torch.equal(strong.query.weight, weak.query.weight)
    assert torch.equal(strong.score.weight, weak.score.weight)


def test_a_saved_head_of_the_other_reading_is_refused(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    saved = copy.deepcopy(trainer.head)
    assert saved is not None
    saved.residual = False
    with pytest.raises(UserError, match=r"reward.residual = True: the head beside reward.model = .* has none"):
        build_reward(trainer.config, trainer.scorer, saved, 32, Workers(), "cpu")
    reward = trainer.config.reward.model_copy(update={"residual": False})
    config = trainer.config.model_copy(update={"reward": reward})
    assert build_reward(config, trainer.scorer, saved, 32, Workers(), "cpu").head is saved
