"""The plan of a configured run on this machine, before anything is trained, downloaded or started."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from transformers import AutoModelForSequenceClassification

from r2m.config import Config, ForumTask, TextTask
from r2m.errors import UserError
from r2m.models.dimensions import config_for_planning
from r2m.training.plan import Plan, plan
from r2m.training.shape import shape_of

UNCENTRED = (
    "reward.no_eos=replace rests on a reward whose mean over supervised samples is near 0, and the reward model's "
    "config has no reward_mean, which `r2m reward-model` writes; reward.no_eos=keep asks for none"
)


def plan_for(
    config: Config, address: str | None = None, *, launch: bool = False, gpus: float | None = None
) -> Plan:
    """The plan; with `launch`, one that this machine can run. A cluster at `address` is not asked for resources;
    `gpus`: how many it has, where that is known.

    Raises UserError for what cannot run: see `plan`.
    """
    policy, reward = config.policy.model, config.reward.model
    policy_config = config_for_planning(policy, "policy.model") if policy else _forum(config.task, "policy")
    reward_config = config_for_planning(reward, "reward.model") if reward else _forum(config.task, "reward")
    if reward is not None and reward_config.num_labels != 1:
        raise UserError(
            f"reward.model = {reward!r}: it has {reward_config.num_labels} labels; it must have 1"
        )
    resources: dict[str, Any] = {"gpus": gpus}
    if address is None:
        import torch

        gpus = torch.cuda.device_count()
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / config.run.workers
        if gpus:
            memory = torch.cuda.get_device_properties(0).total_memory
        if launch or gpus or config.run.device != "gpu":  # GPUs can be planned for where there are none
            resources = {"cpus": os.cpu_count() or 1, "gpus": gpus, "worker_gib": memory / 2**30}
    p = plan(
        config,
        shape_of(policy_config),
        shape_of(reward_config, AutoModelForSequenceClassification, "reward.model"),
        **resources,
    )
    if reward is not None and config.reward.no_eos == "replace" and not hasattr(reward_config, "reward_mean"):
        return replace(p, notes=(*p.notes, UNCENTRED))
    return p


def _forum(task: ForumTask | TextTask, model: str) -> Any:
    """What the embedded task's own policy or reward model will have for a config."""
    assert isinstance(task, ForumTask), "a text task's config names both models"
    from r2m.stages.forum import POLICY_WIDTH, new_policy
    from r2m.tasks.forum_tokenizer import forum_tokenizer

    return new_policy(forum_tokenizer(), POLICY_WIDTH if model == "policy" else task.reward_width).config
