"""The tree of settings.

A section is handed to the code that needs it; nothing reads a setting by name at run time. Defaults name
their source: a section of the paper (R2M), `trl` (RLOOTrainer 1.16) or `here` for a choice of ours that
docs/decisions.md gives the reason for.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from r2m.config.arms import arm_of
from r2m.config.newer import NEWER, as_before
from r2m.config.reward import Reward
from r2m.config.tasks import ForumTask, Section, TextTask
from r2m.config.types import Count, Name, Names, Number, Place, Positive, Seed, Share, Whole
from r2m.config.uris import check_endpoint, check_uri, check_variable

Aggregation = Literal["token_mean", "sequence_mean_token_sum", "sequence_mean_token_mean"]


class Lora(Section):
    """Low-rank adapters in the place of the policy's own weights: Hu et al., 2021, arXiv:2106.09685."""

    rank: Count = 16  # r; trl
    alpha: Positive = 32.0  # the adapters' product is weighed by alpha / rank; trl
    targets: Names = (
        "all-linear",
    )  # layers by their names; all-linear: all but the output layer; Dettmers et al., 2023


class Policy(Section):
    model: Place | None = None  # hub id or local folder; null: the task's own supervised model
    dtype: Literal["float32", "bfloat16"] = "float32"  # of compute; what AdamW updates is fp32 with either
    sharding: Literal["none", "zero1", "zero2", "zero3"] = "none"  # over the workers, by DeepSpeed's ZeRO
    offload: Literal["none", "optimizer", "all"] = "none"  # to host memory: AdamW's states; zero3: weights, too
    recompute: bool = False  # activations in the backward: less memory, another forward
    lora: Lora | None = None  # null: all weights are trained

    @model_validator(mode="after")
    def _offload_of_shards(self) -> Policy:
        needs = {"none": (), "optimizer": ("zero1", "zero2", "zero3"), "all": ("zero3",)}[self.offload]
        if needs and self.sharding not in needs:
            allowed = " or ".join(f"sharding={stage}" for stage in needs)
            raise ValueError(f"offload = {self.offload!r} needs {allowed} (it is {self.sharding!r})")
        return self


class Algorithm(Section):
    """The RL optimisation phase: Algorithm 1 without its feedback lines is RLOO."""

    advantage: Literal["rloo", "grpo", "remax", "reinforce_pp", "reinforce_pp_baseline"] = "rloo"  # Eq. 1
    queries: Count = 128  # n of a round, over all workers; F.2
    responses: Annotated[Count, Field(ge=2)] = 4  # K of a query; F.2
    trajectories: Count | None = None  # the whole budget; rounds T = trajectories / (n K)
    rounds: Count | None = None  # T itself: give one of the two
    epochs: Whole = 2  # k of Alg. 1; F.2. 0: nothing is trained, the SFT baseline
    minibatches: Count = 1  # optimiser steps an epoch
    microbatch: Count = 32  # trajectories a forward: a divisor or a multiple of K
    sample_batch: Count = 128  # trajectories sampled at once
    max_response_tokens: Count = 512  # Sec. 5
    temperature: Annotated[Number, Field(ge=1e-3, le=1e3)] = 0.7  # F.2
    lr: Positive = 1e-6
    lr_decay: Literal["constant", "linear"] = "constant"  # linear: to 0 at round T (TL;DR reproduction)
    adam_eps: Positive = 1e-8
    weight_decay: Annotated[Number, Field(ge=0)] = 0.0
    max_grad_norm: Positive = 1.0  # trl
    beta: Annotated[Number, Field(ge=0)] = 0.05  # weight of the KL; trl, TL;DR reproduction
    clip_low: Annotated[Positive, Field(lt=1)] = 0.2  # ε; trl
    clip_high: Positive = 0.2
    ratio_level: Literal["token", "sequence"] = "token"  # here
    kl_placement: Literal["loss", "reward"] = "loss"  # Eq. 2
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"  # here
    sampler_correction: Literal["none", "truncated"] = "none"  # weight of trainer against sampler
    sampler_cap: Positive = 2.0  # at most so large: Yao et al., 2025; trl
    # here: the gradient of Eq. 2's expectation over sequences
    loss_aggregation: Aggregation = "sequence_mean_token_sum"

    @model_validator(mode="after")
    def _consistent(self) -> Algorithm:
        if (self.trajectories is None) == (self.rounds is None):
            both = f"trajectories = {self.trajectories}, rounds = {self.rounds}"
            raise ValueError(f"give trajectories or rounds, one of the two ({both})")
        a_round = self.queries * self.responses
        if self.trajectories is not None and self.trajectories < a_round:
            one = f"one round of queries * responses = {a_round}"
            raise ValueError(f"trajectories = {self.trajectories} is less than {one}")
        if self.queries % self.minibatches:
            raise ValueError(f"minibatches = {self.minibatches} must divide queries = {self.queries}")
        if self.microbatch % self.responses and self.responses % self.microbatch:
            allowed = f"must be a divisor or a multiple of responses = {self.responses}"
            raise ValueError(f"microbatch = {self.microbatch} {allowed}")
        by_token = self.advantage in ("remax", "reinforce_pp") and self.kl_placement == "reward"
        if by_token and self.ratio_level == "sequence":
            raise ValueError(
                f"ratio_level = 'sequence': advantage = {self.advantage} with kl_placement = 'reward' gives each "
                "token an advantage of its own; ratio_level=token is allowed"
            )
        return self

    @property
    def total_rounds(self) -> int:
        """T of Eq. 3: the run's horizon."""
        return self.rounds or (self.trajectories or 0) // (self.queries * self.responses)


class Rollout(Section):
    """What samples the responses."""

    engine: Literal["own", "vllm"] = "own"
    gpus: Whole = 0  # vllm: of its own, an equal part for each worker; 0: the workers', where it sleeps in between
    memory: Annotated[Share, Field(gt=0)] = 0.3  # vllm: share of a GPU for its weights and caches; trl


class Run(Section):
    seed: Seed = 0
    workers: Count = 1
    device: Literal["auto", "cpu", "gpu"] = "auto"
    storage: Place = "r2m-runs"  # runs, caches, MLflow's database and artifacts
    tracking_uri: Annotated[str, AfterValidator(check_uri)] | None = None  # null: SQLite in the storage
    checkpoint_every: Count = 10  # rounds
    keep_checkpoints: Annotated[Count, Field(ge=2)] = 2  # the newest, and one to fall back on
    sample_every: Count = 10  # rounds between sample texts in the journal
    samples: Count = 8
    eval_every: Whole = 10  # rounds; 0: never
    eval_queries: Count = 64  # the first held-out prompts: all of them where there are fewer
    eval_seed: Seed = 0  # of the draws on held-out prompts: the same for runs of any seed
    judge: Place | None = None  # reward model (hub id or folder) of eval/win_rate; null: the gold program
    judge_url: Annotated[str, AfterValidator(check_endpoint)] | None = None  # OpenAI-compatible: the alarm's judge
    judge_model: Name | None = None
    judge_key_env: Annotated[str, AfterValidator(check_variable)] | None = None  # variable with its key; null: no key
    on_alarm: Literal["note", "stop"] = "note"  # stop: with a checkpoint, for good
    alarm_judgements: Whole = 1280  # held-out judgements that the alarm may ask for; here: 20 evaluations of 64
    max_failures: Whole = 3  # worker deaths that a run survives
    hidden_budget_gib: Positive = 8.0  # what a worker may hold of the policy's hidden states
    hidden_on_host: bool = False  # keep them in host memory instead of the accelerator's

    @model_validator(mode="after")
    def _one_judge(self) -> Run:
        if self.judge_url is not None and self.judge is not None:
            raise ValueError(f"judge = {self.judge!r}, judge_url = {self.judge_url!r}: give one of the two")
        if (self.judge_url is None) != (self.judge_model is None):
            raise ValueError(f"judge_url = {self.judge_url!r}, judge_model = {self.judge_model!r}: give both or none")
        if self.judge_key_env is not None and self.judge_url is None:
            raise ValueError(f"judge_key_env = {self.judge_key_env!r} needs judge_url")
        return self


class Config(Section):
    recipe: Name = "custom"
    task: ForumTask | TextTask = Field(discriminator="kind")
    policy: Policy = Policy()
    reward: Reward = Reward()
    algorithm: Algorithm
    rollout: Rollout = Rollout()
    run: Run = Field(Run(), validate_default=True)

    @field_validator("run")
    @classmethod
    def _held_out(cls, run: Run, info: ValidationInfo) -> Run:
        """What is kept of a run says how many prompts it is evaluated on."""
        task = info.data.get("task")  # missing where it is at fault itself
        return run.model_copy(update={"eval_queries": min(run.eval_queries, task.held_out)}) if task else run

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        a, r = self.algorithm, self.reward
        if r.feedback and a.epochs == 0:
            raise ValueError(
                "algorithm.epochs = 0 trains nothing, so there is nothing for policy feedback to do; set "
                "reward.feedback=off, or at least 1 epoch"
            )
        if r.feedback and r.train_head and r.alpha > 0 and a.responses < 3:
            raise ValueError(
                f"reward.alpha = {r.alpha} needs algorithm.responses >= 3 (it is {a.responses}): the group "
                "reward entropy of two responses is a constant; set reward.alpha=0 or raise the responses"
            )
        if a.queries % (a.minibatches * self.run.workers):
            raise ValueError(
                f"algorithm.queries = {a.queries} must be a multiple of minibatches * workers = "
                f"{a.minibatches * self.run.workers}: a query's group stays on one worker"
            )
        if r.feedback and a.queries % (r.minibatches * self.run.workers):
            raise ValueError(
                f"algorithm.queries = {a.queries} must be a multiple of reward.minibatches * workers = "
                f"{r.minibatches * self.run.workers}"
            )
        if r.labels > a.queries or r.labels % (r.minibatches * self.run.workers):
            raise ValueError(
                f"reward.labels = {r.labels} must be a multiple of reward.minibatches * workers = "
                f"{r.minibatches * self.run.workers}, and at most algorithm.queries = {a.queries}"
            )
        if r.anchor and self.task.kind == "text" and r.anchor_data is None:
            raise ValueError(
                f"reward.anchor = {r.anchor:g}: name the pairs that reward.model was trained on by reward.anchor_data"
            )
        if r.ensemble != "none" and r.model is None and not isinstance(r.members, int):
            raise ValueError(
                f"reward.members = {list(r.members)}: further ones than reward.model, which is not named; of the "
                "task's own reward models give a number"
            )
        if r.labels and self.task.kind == "text" and self.run.judge is None:
            raise ValueError(f"reward.labels = {r.labels}: a text task has no gold; name the judge by run.judge")
        own = self.rollout.gpus
        if own and (self.rollout.engine == "own" or own % self.run.workers):
            raise ValueError(
                f"rollout.gpus = {own}: GPUs of rollout.engine=vllm (it is {self.rollout.engine!r}), a multiple of "
                f"run.workers = {self.run.workers}: each worker has an engine of its own"
            )
        if self.task.kind == "text":
            for section in ("policy", "reward"):
                if getattr(self, section).model is None:
                    raise ValueError(f"{section}.model = null: a text task has no model of its own; name one")
        if self.run.eval_every and self.run.eval_queries < self.run.workers:
            raise ValueError(
                f"run.workers = {self.run.workers}: each evaluates at least one held-out prompt, and there are "
                f"{self.run.eval_queries}; set run.eval_every=0, or more by run.eval_queries and task.held_out"
            )
        return self

    @property
    def arm(self) -> str:
        """What is compared: the estimator, with R2M's feedback or without, and what an ablation left out."""
        return arm_of(self.model_dump())

    def digest(self) -> str:
        """Hash of what determines the result: not where it is stored or tracked."""
        tree = self.model_dump(mode="json")
        for key in ("storage", "tracking_uri"):
            tree["run"].pop(key)
        return digest(tree | {name: as_before(name, tree[name]) for name in NEWER})


def digest(tree: Any) -> str:
    """The first 12 hex digits of the SHA-256 of a JSON-able tree."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]
