"""The reward of a run's rounds, as its settings have it, and the head that it trains."""

from typing import NamedTuple

import torch

from r2m.config import Config
from r2m.core.feedback_head import FeedbackHead
from r2m.errors import UserError
from r2m.policy.descent import Descent
from r2m.reward.reward import FeedbackReward, RoundReward, VanillaReward
from r2m.reward.scoring import RewardEmbedder
from r2m.workers import Workers


class BuiltReward(NamedTuple):
    reward: RoundReward
    head: FeedbackHead | None  # None without feedback
    descent: Descent | None  # of the head; None where it stays as it is


def build_reward(
    config: Config, scorer: RewardEmbedder, saved: FeedbackHead | None, policy_width: int, workers: Workers,
    device: torch.device | str,
) -> BuiltReward:  # fmt: skip
    """`saved`: the head that was found beside the reward model; without one, one is drawn from torch's generator.

    Raises UserError for a saved head of the other reading of Eq. 3.
    """
    a, r = config.algorithm, config.reward
    if not r.feedback:
        return BuiltReward(VanillaReward(scorer, r), None, None)
    if saved is not None and saved.residual != r.residual:
        raise UserError(
            f"reward.residual = {r.residual}: the head beside reward.model = {r.model!r} has "
            f"{'one' if saved.residual else 'none'}; reward.residual={saved.residual} is allowed"
        )
    head = saved or FeedbackHead.from_score(
        scorer.phi, policy_width, r.attention_width, r.num_heads, residual=r.residual, output_gain=r.head_gain
    )
    head, descent = head.to(device), None
    if head.score.bias is not None:
        # The head's loss depends on differences of scores alone: a bias would be moved by rounding errors.
        head.score.bias.requires_grad_(False)
    if r.train_head:
        descent = Descent(
            head.named_parameters(), r.lr, adam_eps=a.adam_eps, weight_decay=0.0, max_grad_norm=a.max_grad_norm,
            workers=workers,
        )  # fmt: skip
    reward = FeedbackReward(
        scorer, r, head, descent, total_rounds=a.total_rounds, microbatch=a.microbatch, workers=workers,
        seed=config.run.seed,
    )  # fmt: skip
    return BuiltReward(reward, head, descent)
