"""What a run will take, by arithmetic, before Ray is called or a model is loaded.

The parts of a worker's memory are r2m.training.memory's, the time is r2m.training.duration's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from r2m.config import Config, Run
from r2m.core.schedule import omega_reaches_minimum
from r2m.errors import UserError
from r2m.files import GIB, check_room, human
from r2m.models.families import CacheUse
from r2m.training.duration import Guess, guess
from r2m.training.memory import (
    BYTES,
    CUDA,
    FP32,
    LIBRARIES,
    head_parameters,
    memory,
    reference_responses,
    trained_parameters,
)
from r2m.training.shape import Shape


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
    checkpoint: int
    checkpoints: int  # on disk at once: those kept and the one being written
    export: int  # the trained models that a finished run leaves
    notes: tuple[str, ...]  # what the user should know, if anything
    round_greedy: int = 0  # greedy responses beside a round's trajectories: ReMax's, one a query
    round_references: int = 0  # the reference policy's responses beside them: M a query
    host: dict[str, int] = field(default_factory=dict)  # what waits in host memory beside a GPU
    rollout_gpus: int = 0  # of vLLM's own, beside the workers'
    time: Guess | None = None
    fits: str = ""  # that it fits the machine that was assumed, and how closely

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
    def process(self) -> dict[str, int]:
        """What libraries take of the device that a worker computes on."""
        return {"CUDA": CUDA} if self.device == "gpu" else {"the process itself": LIBRARIES}

    @property
    def peak(self) -> dict[str, int]:
        """A worker's device at its fullest, by parts."""
        largest = max(self.phases, key=lambda phase: self.phases[phase])
        return self.process | self.memory | {largest: self.phases[largest]}

    @property
    def peak_memory(self) -> int:
        return sum(self.peak.values())

    @property
    def host_memory(self) -> int:
        """Of a worker, beside a GPU."""
        return LIBRARIES + sum(self.host.values()) if self.device == "gpu" else 0


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
    T, K = a.total_rounds, a.responses
    P = prompt_tokens(config, policy.context, reward.context)
    device = resolve_device(run, gpus)
    m = memory(config, policy, reward, P, device, worker_gib)
    as_stored = {"reference": policy.stored == config.policy.dtype, "reward model": reward.stored == r.dtype}
    as_stored["ensemble"] = as_stored["reward model"] and r.ensemble != "warm"
    as_stored["policy weights"] = config.policy.lora is not None and as_stored["reference"]
    on_file = device == "cpu" and config.policy.sharding != "zero3"  # which spreads copies
    mapped = frozenset(part for part, same in as_stored.items() if same and on_file and part in m.held)
    settles = omega_reaches_minimum(T, r.omega_min) if r.omega_schedule == "cosine" else 0.0
    notes = []
    if policy.cache_use is not CacheUse.SHARED:
        notes.append(f"slower, as this family's prompts can't be shared by their responses: {policy.cache_use.value}")
    if r.labels:
        judge = "gold" if run.judge is None else f"run.judge = {run.judge!r}"
        notes.append(f"{T * r.labels:,} judgements by {judge}, {r.labels} groups of {K} responses a round")
    there, needed = (gpus, run.workers + config.rollout.gpus) if device == "gpu" else (cpus, run.workers)
    if there is not None and there < needed:
        more = f" and rollout.gpus = {config.rollout.gpus}" if needed > run.workers else ""
        raise UserError(f"run.workers = {run.workers}{more}: each takes a {device}, and there are {there:g}")
    if worker_gib is not None:
        check_fits(m.held | {"gradients": m.gradients}, worker_gib, f"a {device} worker", config)
        if config.rollout.engine == "vllm":
            engines = max(1, config.rollout.gpus // run.workers)  # GPUs of each
            weights = policy.parameters * BYTES[config.policy.dtype] // engines
            if weights > config.rollout.memory * worker_gib * GIB:
                raise UserError(
                    f"rollout.memory = {config.rollout.memory:g}: vLLM's weights take {weights / GIB:.1f} GiB of a "
                    f"GPU, and its share of {worker_gib:.1f} is {config.rollout.memory * worker_gib:.1f}"
                )
    trained = trained_parameters(config.policy, policy)
    head = head_parameters(config, policy, reward) if r.feedback else 0
    policy_file = (policy.parameters if config.policy.lora is None else trained) * BYTES[config.policy.dtype]
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
        memory=m.held,
        mapped=mapped,
        phases=m.phases,
        host=m.host,
        checkpoint=FP32 * (3 * trained + (3 if r.train_head else 1) * head),
        checkpoints=run.keep_checkpoints + 1,
        export=policy_file + reward.parameters * BYTES[r.dtype] + FP32 * head,
        notes=tuple(notes),
        round_greedy=a.queries if a.advantage == "remax" else 0,
        round_references=a.queries * reference_responses(config),
        rollout_gpus=config.rollout.gpus if device == "gpu" else 0,
        time=guess(config, policy, reward, P, device),
    )


def check_fits(parts: Mapping[str, int], gib: float, where: str, config: Config) -> None:
    """Raises UserError, with the arithmetic, where the parts are more than a device has."""
    if sum(parts.values()) <= gib * GIB:
        return
    advice = {
        "none": "more workers don't lower that: the policy is replicated, not sharded; policy.sharding=zero3 divides "
        "it by run.workers",
        "zero3": "more workers lower that, as does policy.offload, or adapters alone by policy.lora",
    }.get(config.policy.sharding, "policy.sharding=zero3 divides the weights, too, by run.workers")
    raise UserError(f"{arithmetic(parts)}, and {where} has {gib:.1f}; {advice}")


def arithmetic(parts: Mapping[str, int]) -> str:
    """a 1.0 + b 2.0 = 3.0 GiB"""
    terms = " + ".join(f"{part} {size / GIB:.1f}" for part, size in parts.items())
    return f"{terms} = {sum(parts.values()) / GIB:.1f} GiB"


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
