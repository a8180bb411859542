"""What a run will take, by arithmetic, before Ray is called or a model is loaded.

Letters: n queries of a worker and K responses a round, P prompt and R response tokens, B trajectories,
D width, V vocabulary. Sizes are bytes of one worker. The policy is replicated on all workers, not sharded.
"""

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from r2m.config import Config, Run
from r2m.core.schedule import omega_reaches_minimum
from r2m.errors import UserError
from r2m.files import GIB, check_room, human
from r2m.models.families import CacheUse
from r2m.training.shape import Shape

BYTES = {"float32": 4, "bfloat16": 2}
LOGITS_AT_ONCE = 2**26  # values: the default of r2m.core.masking.token_log_probs
BF16_LR = 4e-5  # moves 8 % of SmolLM2's weights in bf16; 1e-6 moves 0.4 %


@dataclass(frozen=True)
class Plan:
    recipe: str
    rounds: int  # T
    round_trajectories: int  # of all workers
    left_over: int  # trajectories of the budget that fill no round
    policy_steps: int  # of the optimiser, in all
    head_steps: int
    omega_settles: float | None  # t*, the time in rounds from which ω = Ω; None without feedback
    prompt_tokens: int  # P at most
    device: str  # cpu or gpu
    workers: int  # a CPU each
    gpus: int
    memory: dict[str, int]  # held through the run
    mapped: frozenset[str]  # parts of it that a node holds once for all its processes: r2m.models.loading
    phases: dict[str, int]  # held in turn on top of it, estimated
    host_memory: int  # hidden states that wait in host memory beside a GPU
    checkpoint: int
    checkpoints: int  # on disk at once: those kept and the one being written
    export: int  # the trained models that a finished run leaves
    notes: tuple[str, ...]  # what the user should know, if anything
    round_greedy: int = 0  # greedy responses beside a round's trajectories: ReMax's, one a query

    @property
    def trajectories(self) -> int:
        return self.rounds * self.round_trajectories

    @property
    def disk(self) -> int:
        return self.checkpoints * self.checkpoint + self.export

    def check_disk(self, storage: Path | str) -> None:
        """Raises UserError where the disk of `storage` can't take the run's files."""
        checkpoints = f"{self.checkpoints} checkpoints (those kept, one being written) of {human(self.checkpoint)}"
        what = f"{checkpoints} and {human(self.export)} of trained models"
        check_room(Path(storage), self.disk, f"run.storage = {str(storage)!r}", what)

    @property
    def disk_left(self) -> int:
        """Bytes that a finished run leaves."""
        return self.disk - self.checkpoint

    @property
    def peak_memory(self) -> int:
        return sum(self.memory.values()) + max(self.phases.values())


def resolve_device(run: Run, gpus: float | None) -> str:
    """`cpu` or `gpu`: run.device, where `auto` takes GPUs if there is one (of `gpus`) for each worker."""
    if run.device != "auto":
        return run.device
    return "gpu" if gpus is not None and gpus >= run.workers else "cpu"


def plan(
    config: Config,
    policy: Shape,
    reward: Shape,
    *,
    cpus: float | None = None,
    gpus: int | None = None,
    worker_gib: float | None = None,
) -> Plan:
    """The run's plan on a cluster of so many CPUs and GPUs, with `worker_gib` of memory to a GPU, or to a worker
    on CPUs. What is None is not known, and not checked.

    Raises:
        UserError: sequences longer than a context, hidden states over run.hidden_budget_gib, or a cluster
            that is certainly too small; one line, with the arithmetic.
    """
    a, r, run = config.algorithm, config.reward, config.run
    T, n, K, R = a.total_rounds, a.queries // run.workers, a.responses, a.max_response_tokens
    sampled = K + (a.advantage == "remax")  # responses to a prompt
    P = prompt_tokens(config, policy.context, reward.context)
    device = resolve_device(run, gpus)
    item = BYTES[config.policy.dtype]
    weights = policy.parameters * item
    memory = {
        "policy weights": weights,
        "AdamW states": 2 * weights,
        "reference": weights,
        "reward model": reward.parameters * BYTES[r.dtype],
    }
    phases = {
        "sampling": _sampling(policy, min(max(1, a.sample_batch // sampled), n) * sampled, P + R, item),
        "policy update": weights + _policy_microbatch(policy, a.microbatch, K, P, R, item),
    }
    head = host = 0
    if r.feedback:
        head = 4 * (2 * r.attention_width * (reward.width + policy.width) + reward.width + 1)  # fp32
        memory |= {"feedback head, trained": 4 * head} if r.train_head else {"feedback head": head}
        memory["hidden states"] = hidden_states(config, policy, P)
        if run.hidden_on_host and device == "gpu":
            host = memory.pop("hidden states")
        rows = max(a.microbatch, K) * (P + R - 1)
        phases["head microbatch"] = rows * policy.width * (item if item == 4 else item + 4)
    as_stored = {"reference": policy.stored == config.policy.dtype, "reward model": reward.stored == r.dtype}
    mapped = frozenset(part for part, same in as_stored.items() if same and device == "cpu")
    settles = omega_reaches_minimum(T, r.omega_min) if r.omega_schedule == "cosine" else 0.0
    notes = []
    if policy.cache_use is not CacheUse.SHARED:
        notes.append(f"slower, as this family's prompts can't be shared by their responses: {policy.cache_use.value}")
    if config.policy.dtype == "bfloat16" and a.lr < BF16_LR:
        notes.append(f"most updates of bfloat16 weights by lr = {a.lr:g} are rounded away")
    certain = memory | {"gradients": weights}
    there = gpus if device == "gpu" else cpus
    if there is not None and there < run.workers:
        raise UserError(f"run.workers = {run.workers}: each takes a {device}, and there are {there:g}")
    if worker_gib is not None and sum(certain.values()) > worker_gib * GIB:
        parts = " + ".join(f"{part} {size / GIB:.1f}" for part, size in certain.items())
        raise UserError(
            f"{parts} = {sum(certain.values()) / GIB:.1f} GiB, and a {device} worker has {worker_gib:.1f}; more "
            "workers don't lower that: the policy is replicated, not sharded"
        )
    return Plan(
        recipe=config.recipe,
        rounds=T,
        round_trajectories=a.queries * K,
        left_over=a.trajectories - T * a.queries * K if a.trajectories else 0,
        policy_steps=T * a.epochs * a.minibatches,
        head_steps=T * r.epochs * r.minibatches if r.feedback and r.train_head else 0,
        omega_settles=settles if r.feedback else None,
        prompt_tokens=P,
        device=device,
        workers=run.workers,
        gpus=run.workers if device == "gpu" else 0,
        memory=memory,
        mapped=mapped,
        phases=phases,
        host_memory=host,
        checkpoint=3 * weights + (3 if r.train_head else 1) * head,
        checkpoints=run.keep_checkpoints + 1,
        export=weights + memory["reward model"] + head,
        notes=tuple(notes),
        round_greedy=a.queries * (sampled - K),
    )


def prompt_tokens(config: Config, *contexts: int | None) -> int:
    """The longest prompt, P: task.max_prompt_tokens, else the shortest context less R."""
    R = config.algorithm.max_response_tokens
    P = config.task.max_prompt_tokens if config.task.kind == "text" else None
    context = min((c for c in contexts if c is not None), default=None)
    if context is None:
        if P is None:
            raise UserError(
                "task.max_prompt_tokens: set it: neither the policy nor the reward model has a context length"
            )
        return P
    if (P or 1) + R > context:
        limits = f"task.max_prompt_tokens = {P}, algorithm.max_response_tokens = {R}"
        raise UserError(f"{limits}: together at most the models' context of {context} tokens")
    return P or context - R


def hidden_states(config: Config, policy: Shape, P: int) -> int:
    """Bytes of n (P + K (R - 1)) D values, as r2m.policy.forward.HiddenStates has them, and n (P + R - 1) D more for
    ReMax's greedy responses; UserError over the budget."""
    a, run, item = config.algorithm, config.run, BYTES[config.policy.dtype]
    n, K, R = a.queries // run.workers, a.responses, a.max_response_tokens
    greedy = P + R - 1 if a.advantage == "remax" else 0
    size = n * (P + K * (R - 1) + greedy) * policy.width * item
    more = f" + {greedy} of the greedy response" if greedy else ""
    if size > run.hidden_budget_gib * GIB:
        raise UserError(
            f"run.hidden_budget_gib = {run.hidden_budget_gib:g}: a worker's hidden states take "
            f"{n} queries * ({P} prompt + {K} * {R - 1} response tokens{more}) * {policy.width} * {item} bytes = "
            f"{size / GIB:.1f} GiB; raise it (run.hidden_on_host=true keeps them off the GPU) or run.workers"
        )
    return size


def _sampling(policy: Shape, B: int, tokens: int, item: int) -> int:
    """Keys and values, and states, of B trajectories (or one layer of all their tokens, where nothing is kept), and
    about four fp32 tensors of [B, V]."""
    kept = B * (tokens * policy.kv_values + policy.state_values)
    if policy.cache_use is CacheUse.RERUN:
        kept = B * tokens * (12 * policy.width + policy.mlp_values)
    return kept * item + 4 * 4 * B * policy.vocabulary


def _policy_microbatch(policy: Shape, B: int, K: int, P: int, R: int, item: int) -> int:
    """What a forward of B trajectories keeps for its backward, no layer recomputed: in each layer about 12 D
    beside the MLP for a token that is run, keys and values again for each trajectory that shares them; and
    about three fp32 tensors of logits."""
    prompts = max(1, B // K) if policy.cache_use is CacheUse.SHARED else B
    run_tokens, read_tokens = prompts * P + B * (R - 1), B * (P + R - 1)
    layer = run_tokens * (12 * policy.width + policy.mlp_values)
    kept = policy.layers * layer + read_tokens * policy.kv_values
    return kept * item + 3 * 4 * min(B * R * policy.vocabulary, LOGITS_AT_ONCE)


def plan_table(p: Plan) -> Table:
    """The plan as a table of two columns."""
    table = Table(title=f"Plan of {p.recipe}", show_header=False)
    spare = f", {p.left_over:,} of the budget left over" if p.left_over else ""
    table.add_row("rounds T", f"{p.rounds:,}")
    table.add_row("trajectories", f"{p.round_trajectories:,} a round, {p.trajectories:,} in all{spare}")
    if p.round_greedy:
        table.add_row("greedy responses", f"{p.round_greedy:,} a round beside these, for ReMax's baseline")
    table.add_row("optimiser steps", f"{p.policy_steps:,} of the policy, {p.head_steps:,} of the head")
    if p.omega_settles is not None:
        table.add_row("ω reaches Ω", f"at t* = {p.omega_settles:.1f} rounds")
    table.add_row("prompts", f"at most {p.prompt_tokens:,} tokens")
    table.add_row("workers", f"{p.workers} (CPUs: {p.workers}, GPUs: {p.gpus})")
    disk = f"{p.checkpoints} checkpoints of {human(p.checkpoint)} and {human(p.export)} of trained models"
    table.add_row("disk", f"{human(p.disk)}: {disk}", end_section=True)
    for part, size in p.memory.items():
        table.add_row(part, human(size))
    for phase, size in p.phases.items():
        table.add_row(f"{phase}, in turn", f"about {human(size)}")
    table.add_row(f"{p.device.upper()} memory of each worker", f"about {human(p.peak_memory)}: not sharded")
    if p.host_memory:
        table.add_row("host memory of each worker", f"{human(p.host_memory)} of hidden states")
    for note in p.notes:
        table.add_row("note", note)
    return table
