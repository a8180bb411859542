"""The reward models that a worker holds and does not train: the run's own, an ensemble's, a judge."""

from itertools import chain
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from r2m.config import Config
from r2m.core.feedback_head import FeedbackHead
from r2m.models.loading import load_tokenizer
from r2m.reward.ensemble import averaged
from r2m.reward.features import load_precision
from r2m.reward.loading import load_reward_model
from r2m.reward.model import RewardModel
from r2m.reward.reward import RoundReward, VanillaReward
from r2m.reward.scoring import RewardEmbedder
from r2m.stages.prepare import features_folder, member_models


def frozen(
    config: Config, path: str, dtype: str, field: str, device: torch.device | str, *others: str
) -> tuple[RewardModel, FeedbackHead | None]:
    """As `load_reward_model`, or of averaged weights with `others`; spread over the workers where the policy's
    weights are."""
    spread = config.policy.sharding == "zero3"
    where = "cpu" if spread else device
    model, head = load_reward_model(path, dtype, where, field)
    if others:
        rest = (load_reward_model(other, dtype, where, "reward.members")[0] for other in others)
        model = averaged(chain([model], rest))
    if spread:
        model.spread(config.policy, device)
    return model, head


def members(
    config: Config, own: str, policy_tokenizer: PreTrainedTokenizerBase, device: torch.device | str
) -> list[RoundReward]:
    """An ensemble's rewards beside that of the reward model `own`; of WARM, that of the averaged weights."""
    r, others = config.reward, member_models(config)
    rewards: list[RoundReward] = []
    for path, *rest in [(own, *others)] if r.ensemble == "warm" else [(other,) for other in others]:
        model, _ = frozen(config, path, r.dtype, "reward.members", device, *rest)
        tokenizer = load_tokenizer(path, "reward.members")
        scorer = RewardEmbedder(model, tokenizer, policy_tokenizer, config.algorithm.microbatch)
        rewards.append(VanillaReward(scorer, r))
    return rewards


def training_precision(
    config: Config, reward_model: str, width: int, device: torch.device | str
) -> torch.Tensor | None:  # fmt: skip
    """M⁻¹ of the reward model's training features, where a penalty is by them. Raises UserError for none."""
    if not config.reward.uncertainty:
        return None
    return load_precision(Path(features_folder(config) or reward_model), width, device)
