"""sft, reward-model: supervised fine-tuning and a reward model, of people's own data or of the embedded task."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from r2m.config import Config, Count, Section, Seed
from r2m.config.paths import place
from r2m.config.types import Name, Place, Positive, Share
from r2m.errors import UserError
from r2m.models.dimensions import FORUM_WIDTH
from r2m.pipelines.contents import Contents
from r2m.pipelines.steps.recipes import absolute_recipe, recipe_config
from r2m.pipelines.work import PENDING_PATH, Kind, StepOutputs, Where, Work
from r2m.stages.prepare import CACHE_VERSION, REWARD_SETTINGS, SFT_SETTINGS, determining
from r2m.training.machine import gpus_here

OPTIONS = ("split", "limit", "max_tokens", "instruction", "as_chat", "seed", "epochs", "batch_size", "lr", "device")
OF_REWARD_MODELS = ("rrm", "odin", "features")  # newer: part of what determines a model where they are given


class _Stage(Section):
    """`model` and `data`, with the options of the command of the same name; or a `recipe` of the embedded task."""

    recipe: Annotated[str, AfterValidator(absolute_recipe)] | None = None
    set: dict[str, Any] = Field({})
    model: Annotated[Place, AfterValidator(place)] | None = None
    data: Annotated[Place, AfterValidator(lambda name: place(name, data=True))] | None = None
    split: Name = "train"
    limit: Count | None = None
    max_tokens: Count | None = None
    instruction: Name | None = None
    as_chat: bool = False
    seed: Seed = 0
    batch_size: Count = 16
    device: Annotated[str, Field(pattern=r"^(cpu|cuda)$")] = "cpu"

    @model_validator(mode="after")
    def _one_source(self) -> _Stage:
        if (self.recipe is None) == (self.data is None):
            raise ValueError(f"recipe = {self.recipe!r}, data = {self.data!r}: give one of the two")
        if (self.data is None) != (self.model is None):
            raise ValueError(f"model = {self.model!r}, data = {self.data!r}: give both or none")
        if self.recipe is None:
            if self.set:
                raise ValueError("set: of a recipe's settings; there is none")
            return self
        own = self.model_fields_set & {*OPTIONS, *OF_REWARD_MODELS}
        if own:
            raise ValueError(f"{min(own)}: not with a recipe, whose task says how its models are trained")
        if self.config.task.kind != "forum":
            raise ValueError(f"recipe = {self.recipe!r}: the embedded task alone has models of its own; give data")
        return self

    @property
    def config(self) -> Config:
        """Of the recipe. Raises UserError."""
        assert self.recipe is not None
        return recipe_config(self.recipe, self.set)

    @property
    def options(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in OPTIONS}


class SftStep(_Stage):
    epochs: Positive = 1.0
    lr: Positive = 2e-5


class RewardModelStep(_Stage):
    """`policy`: the supervised one, which writes the embedded task's preference pairs."""

    policy: Annotated[Place, AfterValidator(place)] | None = None
    epochs: Count = 1
    lr: Positive = 1e-5
    rrm: Share = 0.0
    odin: Literal["none", "length", "spaces"] = "none"
    features: bool = False

    @property
    def options(self) -> dict[str, Any]:
        return super().options | {
            key: getattr(self, key) for key in OF_REWARD_MODELS
            if getattr(self, key) != type(self).model_fields[key].default
        }  # fmt: skip

    @model_validator(mode="after")
    def _policy(self) -> RewardModelStep:
        if (self.recipe is None) != (self.policy is None):
            raise ValueError(
                f"policy = {self.policy!r}: the supervised policy of a recipe's task, and of nothing else"
            )
        return self


def _determines(step: _Stage, contents: Contents, *settings: str) -> Any:
    if step.recipe is None:
        options = {key: value for key, value in step.options.items() if key != "device"}
        return options | {"model": contents.place(step.model), "data": contents.place(step.data)}
    task = step.config.task
    assert task.kind == "forum"
    return determining(task, settings) | {"forum": CACHE_VERSION}


def _sft(step: SftStep, work: Work) -> StepOutputs:
    to = work.folder / work.name
    if step.recipe is None:
        from r2m.stages.sft import run_sft

        _near(step, work, run_sft, to)
    else:
        from r2m.stages.forum import train_sft

        task = step.config.task
        assert task.kind == "forum"
        to.mkdir()
        train_sft(task, to, work.progress)
    return {"model": str(to)}


def _reward_model(step: RewardModelStep, work: Work) -> StepOutputs:
    to = work.folder / work.name
    if step.recipe is None:
        from r2m.stages.reward_model import run_reward_model

        _near(step, work, run_reward_model, to)
        return {"model": str(to)}
    from r2m.stages.forum import train_reward, train_sft

    task = step.config.task
    assert task.kind == "forum"
    assert step.policy is not None
    base = policy = Path(step.policy)
    if task.reward_width != FORUM_WIDTH:  # a reward model of another width starts from a language model of that width
        base = work.folder / "base"
        base.mkdir()
        train_sft(task, base, work.progress, task.reward_width)
    to.mkdir()
    train_reward(task, policy, base, to, work.progress)
    return {"model": str(to)}


def _near(step: _Stage, work: Work, run: Callable[..., Any], to: Path) -> None:
    """On this machine; with a cluster on one of its nodes, where the GPU is."""
    assert step.model is not None
    assert step.data is not None
    if work.address is None:
        run(step.model, step.data, to, progress=work.progress, **step.options)
        return
    from r2m.training.cluster import connect

    connect(work.address, 0)
    import ray

    remote = ray.remote(num_cpus=1, num_gpus=int(step.device == "cuda"), max_retries=0)(run)
    ray.get(remote.remote(step.model, step.data, to, **step.options))


def _check(step: _Stage, where: Where) -> None:
    for key in ("model", "data", "policy"):
        name = getattr(step, key, None)
        if name not in (None, PENDING_PATH) and os.path.isabs(name) and not os.path.exists(name):
            raise UserError(f"{key} = {name!r}: there is none; a local one, or an id on the hub, is allowed")
    if step.device != "cpu" and where.address is None and not gpus_here()[0]:
        raise UserError(f"device = {step.device!r}: this machine has no such device; cpu is allowed")


SFT = Kind(
    SftStep, {"model": "folder"}, 1, lambda step, contents: _determines(step, contents, *SFT_SETTINGS), _check, _sft
)
REWARD_MODEL = Kind(
    RewardModelStep, {"model": "folder"}, 1,
    lambda step, contents: {
        **_determines(step, contents, *SFT_SETTINGS, *REWARD_SETTINGS), "policy": contents.place(step.policy),
    },
    _check, _reward_model,
)  # fmt: skip
