"""What a run will take, by arithmetic, before Ray is called or a model is loaded.

Letters: n queries and K responses a round, W workers, P prompt and R response tokens, D width, V vocabulary.
Sizes are bytes of one worker; the policy is replicated (data parallel), never sharded.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from transformers import AutoModelForCausalLM

from r2m.config import Config, Run
from r2m.core.schedule import omega_reaches_minimum
from r2m.errors import UserError

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2}
SAMPLED_AT_ONCE = 128  # trajectories: the default of r2m.rollout.sampler.sample
LOGITS_AT_ONCE = 2**26  # values: the default of r2m.core.masking.token_log_probs
BF16_LR = 4e-5  # half a bf16 step of a weight of 0.02, the usual scale


@dataclass(frozen=True)
class Shape:
    """Dimensions of a model, without its weights."""

    parameters: int
    width: int
    layers: int
    kv_width: int  # of the keys of a token in one layer: key-value heads × their width
    mlp_values: int  # that the backward keeps of a token in one layer's MLP
    vocabulary: int
    context: int  # tokens


@dataclass(frozen=True)
class Machine:
    """What there is to run on. None: not known, so not checked."""

    cpus: float | None = None
    gpus: int | None = None
    worker_gib: float | None = None  # memory of a GPU, or a worker's share of the machine's


@dataclass(frozen=True)
class Plan:
    recipe: str
    rounds: int  # T
    round_trajectories: int  # n K
    left_over: int  # trajectories of the budget that fill no round
    policy_steps: int  # of the optimiser, in all
    head_steps: int
    omega_settles: float | None  # t*, the round from which ω = Ω; None without feedback
    prompt_tokens: int  # P at most
    device: str  # cpu or gpu
    workers: int
    cpus: int  # in all; one a worker
    gpus: int
    memory: dict[str, int]  # held through the run
    phases: dict[str, int]  # held in turn, estimates
    host_memory: int  # of hidden states that wait in host memory beside a GPU
    checkpoint: int
    checkpoints: int  # on disk at once: those kept and the one being written
    notes: tuple[str, ...]

    @property
    def trajectories(self) -> int:
        return self.rounds * self.round_trajectories

    @property
    def peak_memory(self) -> int:
        return sum(self.memory.values()) + max(self.phases.values())


def shape_of(hf_config: Any, auto_class: Any = AutoModelForCausalLM) -> Shape:
    """Dimensions from a Hugging Face config; parameters counted on a model without storage."""
    with torch.device("meta"):
        model = auto_class.from_config(hf_config)
    c = hf_config.get_text_config()
    heads = c.num_attention_heads
    head_width = getattr(c, "head_dim", None) or c.hidden_size // heads
    gated = any(name.endswith("gate_proj") for name, _ in model.named_modules())
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        width=c.hidden_size,
        layers=c.num_hidden_layers,
        kv_width=(getattr(c, "num_key_value_heads", None) or heads) * head_width,
        mlp_values=(4 if gated else 2) * (getattr(c, "intermediate_size", None) or 4 * c.hidden_size),
        vocabulary=c.vocab_size,
        context=c.max_position_embeddings,
    )


def resolve_device(run: Run, gpus: int | None) -> str:
    """`cpu` or `gpu`: run.device, where `auto` takes GPUs if the cluster has any."""
    if run.device != "auto":
        return run.device
    return "gpu" if gpus else "cpu"


def plan(config: Config, policy: Shape, reward: Shape, machine: Machine = Machine()) -> Plan:
    """The run's plan.

    Raises:
        UserError: sequences longer than a context, hidden states over run.hidden_budget_gib, or a machine
            that is too small for certain; one line, with the arithmetic.
    """
    a, r, run = config.algorithm, config.reward, config.run
    T, n, K, R = a.total_rounds, a.queries // run.workers, a.responses, a.max_response_tokens
    P = prompt_tokens(config, policy, reward)
    device = resolve_device(run, machine.gpus)
    item, rm_item = BYTES[config.policy.dtype], BYTES[r.dtype]
    weights = policy.parameters * item
    memory = {
        "policy weights": weights,
        "gradients": weights,
        "AdamW states": 2 * weights,
        "reference": weights,
        "reward model": reward.parameters * rm_item,
    }
    phases = {
        "sampling": _sampling(policy, min(max(1, SAMPLED_AT_ONCE // K), n) * K, P + R, item),
        "policy microbatch": _policy_microbatch(policy, a.microbatch, K, P, R, item),
    }
    head = host = 0
    if r.feedback:
        head = feedback_head_parameters(reward.width, policy.width, r.attention_width) * 4
        memory["head with gradients and AdamW states"] = 4 * head
        host = hidden_states(config, policy, P)
        if not (run.hidden_on_host and device == "gpu"):
            memory["hidden states"], host = host, 0
        rows = max(a.microbatch, K) * (P + R - 1)
        phases["head microbatch"] = rows * policy.width * (4 if item == 4 else item + 4)
    done = Plan(
        recipe=config.recipe,
        rounds=T,
        round_trajectories=a.queries * K,
        left_over=a.trajectories - T * a.queries * K if a.trajectories else 0,
        policy_steps=T * a.epochs * a.minibatches,
        head_steps=T * r.epochs * r.minibatches if r.feedback else 0,
        omega_settles=omega_reaches_minimum(T, r.omega_min) if r.feedback else None,
        prompt_tokens=P,
        device=device,
        workers=run.workers,
        cpus=run.workers,
        gpus=run.workers if device == "gpu" else 0,
        memory=memory,
        phases=phases,
        host_memory=host,
        checkpoint=3 * weights + 3 * head,
        checkpoints=run.keep_checkpoints + 1,
        notes=_notes(config),
    )
    _check_machine(done, machine)
    return done


def prompt_tokens(config: Config, policy: Shape, reward: Shape) -> int:
    """P at most: task.max_prompt_tokens, else what the shorter context leaves beside R."""
    R, context = config.algorithm.max_response_tokens, min(policy.context, reward.context)
    P = config.task.max_prompt_tokens if config.task.kind == "text" else None
    if (P or 1) + R > context:
        prompt = f"task.max_prompt_tokens = {P} + " if P else ""
        raise UserError(
            f"{prompt}algorithm.max_response_tokens = {R}: the models' context is {context} tokens"
        )
    return P or context - R


def hidden_states(config: Config, policy: Shape, P: int) -> int:
    """Bytes of a worker's hidden states, n (P + K (R - 1)) D values, as models.policy.HiddenStates has them.

    Raises:
        UserError: more than run.hidden_budget_gib.
    """
    a, run, item = config.algorithm, config.run, BYTES[config.policy.dtype]
    n, K, R = a.queries // run.workers, a.responses, a.max_response_tokens
    size = n * (P + K * (R - 1)) * policy.width * item
    if size > run.hidden_budget_gib * GIB:
        raise UserError(
            f"run.hidden_budget_gib = {run.hidden_budget_gib:g}: a worker's hidden states take "
            f"{n} queries * ({P} prompt + {K} * {R - 1} response tokens) * {policy.width} * {item} bytes = "
            f"{size / GIB:.1f} GiB; raise the budget (run.hidden_on_host=true keeps them off the GPU), "
            "or run.workers, or lower task.max_prompt_tokens"
        )
    return size


def feedback_head_parameters(reward_width: int, policy_width: int, attention_width: int) -> int:
    """Query and output projections, key and value projections, and φ with its bias."""
    return 2 * attention_width * (reward_width + policy_width) + reward_width + 1


def _sampling(policy: Shape, B: int, tokens: int, item: int) -> int:
    """Keys and values of B trajectories, and about four fp32 tensors of [B, V]."""
    return 2 * policy.layers * policy.kv_width * B * tokens * item + 4 * 4 * B * policy.vocabulary


def _policy_microbatch(policy: Shape, B: int, K: int, P: int, R: int, item: int) -> int:
    """What a forward of B trajectories keeps for its backward, no layer recomputed; about three fp32 tensors
    of logits. In each layer: 12 D beside the MLP for a token that is run, keys and values once more for each
    trajectory that shares them."""
    N = max(1, B // K)
    run_tokens, context_tokens = N * P + B * (R - 1), B * (P + R - 1)
    layer = run_tokens * (12 * policy.width + policy.mlp_values) + context_tokens * 2 * policy.kv_width
    return policy.layers * layer * item + 3 * 4 * min(B * R * policy.vocabulary, LOGITS_AT_ONCE)


def _notes(config: Config) -> tuple[str, ...]:
    if config.policy.dtype == "bfloat16" and config.algorithm.lr < BF16_LR:
        return (
            f"policy.dtype = bfloat16: at algorithm.lr = {config.algorithm.lr:g} most of AdamW's updates are "
            "less than half a bf16 step of their weight, and are rounded away",
        )
    return ()


def _check_machine(p: Plan, machine: Machine) -> None:
    name, there = ("GPUs", machine.gpus) if p.device == "gpu" else ("CPUs", machine.cpus)
    if there is not None and there < p.workers:
        raise UserError(f"run.workers = {p.workers}: one of {name} each, and there are {there:g}")
    held = sum(p.memory.values())
    if machine.worker_gib is not None and held > machine.worker_gib * GIB:
        parts = " + ".join(f"{part} {size / GIB:.1f}" for part, size in p.memory.items())
        raise UserError(
            f"a {p.device} worker must hold {parts} = {held / GIB:.1f} GiB and has {machine.worker_gib:.1f}; "
            "the policy is replicated, so more workers don't lower that"
        )


def check_storage(p: Plan, storage: Path) -> None:
    """Raises UserError where the disk of `storage` (which need not exist yet) can't take the checkpoints."""
    folder = storage.absolute()
    while not folder.exists():
        folder = folder.parent
    free, need = shutil.disk_usage(folder).free, p.checkpoint * p.checkpoints
    if free < need:
        raise UserError(
            f"run.storage = {str(storage)!r}: {p.checkpoints} checkpoints (the kept ones and the one being "
            f"written) of {human(p.checkpoint)} take {human(need)}, and {human(free)} are free"
        )


def human(size: int) -> str:
    return f"{size / GIB:,.1f} GiB" if size >= GIB else f"{size / 2**20:,.1f} MiB"


def render(p: Plan) -> Table:
    """The plan as a table of two columns."""
    spare = f", {p.left_over:,} of the budget left over" if p.left_over else ""
    head = f", {p.head_steps:,} of the head" if p.head_steps else ""
    each = "a CPU and a GPU" if p.gpus else "a CPU"
    disk = human(p.checkpoint * p.checkpoints)
    run = {
        "rounds T": f"{p.rounds:,}",
        "trajectories": f"{p.round_trajectories:,} a round, {p.trajectories:,} in all{spare}",
        "optimiser steps": f"{p.policy_steps:,} of the policy{head}",
        "ω reaches Ω": "never used" if p.omega_settles is None else f"at round {p.omega_settles:.1f}",
        "prompts": f"at most {p.prompt_tokens:,} tokens",
        "workers": f"{p.workers}, {each} for each",
        "checkpoints": f"{human(p.checkpoint)} each, {p.checkpoints} on disk at once: {disk}",
    }
    held = {part: human(size) for part, size in p.memory.items()}
    in_turn = {f"{phase}, in turn": f"about {human(size)}" for phase, size in p.phases.items()}
    total = {
        f"{p.device.upper()} memory of a worker": f"about {human(p.peak_memory)}; more workers don't lower it:"
        " the policy is replicated, not sharded"
    }
    if p.host_memory:
        total["host memory of a worker"] = f"{human(p.host_memory)} of hidden states"
    table = Table(title=f"Plan of {p.recipe}", show_header=False)
    for section in (run, held | in_turn, total | dict.fromkeys(["note"] * bool(p.notes), "\n".join(p.notes))):
        for name, value in section.items():
            table.add_row(name, value)
        table.add_section()
    return table
