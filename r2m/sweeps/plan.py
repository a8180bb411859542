"""What a sweep will take, and how many of its trials fit at once, by arithmetic, before anything starts.

A trial is a run of the worker loop: in the Tune process itself (one worker on a CPU), else in Ray Train workers
that a process of the trial's own, its driver, waits for. Sizes are bytes unless a name says GiB.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path

from rich.table import Table

from r2m.errors import UserError
from r2m.files import GIB, check_room, human
from r2m.training.memory import CUDA, PROCESS
from r2m.training.plan import Plan

DRIVER_CPU = 0.01  # that Ray Tune asks for a trial whose workers are elsewhere
RAY = int(1.2 * GIB)  # measured on a head node: Ray's daemons 0.5, the sweep's own process 0.7


@dataclass(frozen=True)
class SweepPlan:
    runs: int
    trajectories: int  # of all runs, at most
    device: str  # cpu or gpu
    workers: int  # of a trial, a CPU each
    nested: bool  # Ray Train workers; False: the trial's one worker is the Tune process
    gpu_share: float  # of a GPU, for each worker; 0 on CPUs
    concurrent: int  # trials at once
    limits: dict[str, int]  # trials at once that each resource has room for
    worker: dict[str, int]  # node memory that each worker takes for itself
    device_memory: dict[str, int]  # of a GPU, for each worker; empty on CPUs
    drivers: int  # node memory of a nested trial's own processes
    shared: dict[str, int]  # node memory, taken once
    nodes: int
    disk: int

    @property
    def limit(self) -> str:
        """What keeps more trials from running at once."""
        tightest = min(self.limits, key=lambda name: self.limits[name])
        if self.concurrent < self.limits[tightest]:
            return "runs" if self.concurrent == self.runs else "budget.concurrent"
        return tightest

    def check_disk(self, storage: Path | str) -> None:
        """Raises UserError where the disk of `storage` can't take the files of all runs."""
        what = f"checkpoints and trained models of {self.runs} runs"
        check_room(Path(storage), self.disk, f"run.storage = {str(storage)!r}", what)

    @property
    def cpus(self) -> float:
        """That Ray holds for a trial."""
        return self.workers + DRIVER_CPU if self.nested else 1.0


def plan_sweep(
    plans: Sequence[Plan],
    *,
    runs: int,
    cpus: float,
    gpus: float,
    node_gib: float,
    gpu_gib: float | None = None,
    nodes: int = 1,
    concurrent: int | None = None,
    gpu_share: float = 1.0,
) -> SweepPlan:
    """How `runs` runs go on a cluster of so many CPUs and GPUs (as Ray counts them, over all nodes) and of nodes
    with `node_gib` of memory each.

    `plans` are of the search space's configurations; the worst of each part is taken. `gpu_gib` is the memory of a
    GPU (None: not known, not checked), of which each worker may use `gpu_share`. `concurrent` is how many runs the
    user wants at once; None: as many as fit.

    Raises:
        UserError: nothing fits, or fewer than `concurrent`; one line, with the arithmetic.
    """
    workers = max(p.workers for p in plans)
    device = "gpu" if any(p.device == "gpu" for p in plans) else "cpu"
    nested = workers > 1 or device == "gpu"
    memory, phase = _worst([p.memory for p in plans]), _worst([p.phases for p in plans])
    largest = max(phase, key=lambda name: phase[name])
    held = memory | {largest: phase[largest]}
    if device == "gpu":
        host = _worst([p.host for p in plans])
        loading = max(memory.get("policy weights", 0), memory.get("reward model", 0))  # on their way to the GPU
        worker = {"process": PROCESS, "loading": loading} | host
        on_gpu, shared = {"CUDA": CUDA} | held, {}
    else:
        mapped = frozenset.intersection(*(p.mapped for p in plans))
        worker = {"process": PROCESS} | {part: size for part, size in held.items() if part not in mapped}
        on_gpu, shared = {}, {part: size for part, size in memory.items() if part in mapped}
    drivers = 2 * PROCESS if nested else 0  # the Tune function, and Ray Train's controller
    shared |= {"Ray and the sweep": RAY}
    share = gpu_share if device == "gpu" else 0.0
    if share and share < 1 and workers > 1:
        raise UserError(
            f"budget.gpu_share = {share:g} with run.workers = {workers}: two workers of one run can't share a "
            "GPU (NCCL); set one of them to 1"
        )
    if on_gpu and gpu_gib is not None and sum(on_gpu.values()) > share * gpu_gib * GIB:
        raise UserError(
            f"budget.gpu_share = {share:g}: a worker takes about {_sum(on_gpu)} of a GPU's memory, and {share:g} "
            f"of one's {gpu_gib:.1f} GiB is {share * gpu_gib:.1f}"
        )

    def node_fits(c: int) -> bool:
        own = node_gib * GIB - sum(shared.values()) - drivers * ceil(c / nodes)
        return nodes * floor(own / sum(worker.values())) >= c * workers

    def cpus_fit(c: int) -> bool:
        # A CPU with a driver on it has no room for a worker: at worst one on each node that has a driver.
        lost = min(nodes, c) * ceil(DRIVER_CPU * c) if nested else 0
        return floor(cpus) - lost >= c * workers

    limits = {"CPUs": _most(cpus_fit)}
    if share:
        on_each = floor(1 / share + 1e-9)  # workers: a share is of one GPU, never of two
        limits["GPUs"] = floor(gpus) * on_each // workers
    limits["memory"] = _most(node_fits)
    fits = min(limits.values())
    if fits < max(1, concurrent or 1):
        arithmetic = {
            "CPUs": f"a trial takes {workers} CPU{'s' * (workers > 1)}"
            + (f" and {DRIVER_CPU:g} for its driver" if nested else "")
            + f", and there are {cpus:g}",
            "GPUs": f"a trial takes {workers} * {share:g} GPUs, and there are {gpus:g}",
            "memory": f"a trial takes {workers} * ({_sum(worker)})"
            + (f" + {drivers / GIB:.1f} for its drivers" if drivers else "")
            + f", and of a node's {node_gib:.1f} GiB all trials share {_sum(shared)}"
            + (f" ({nodes} nodes)" if nodes > 1 else ""),
        }[min(limits, key=lambda name: limits[name])]  # fmt: skip
        asked = f"budget.concurrent = {concurrent}: " if concurrent else ""
        raise UserError(f"{asked}{fits or 'no'} trial{'s' * (fits > 1)} fit{'s' * (fits < 2)} at once: {arithmetic}")
    at_once = min(runs, concurrent or fits)
    return SweepPlan(
        runs=runs,
        trajectories=runs * max(p.trajectories for p in plans),
        device=device,
        workers=workers,
        nested=nested,
        gpu_share=share,
        concurrent=at_once,
        limits=limits,
        worker=worker,
        device_memory=on_gpu,
        drivers=drivers,
        shared=shared,
        nodes=nodes,
        disk=runs * max(p.disk_left for p in plans) + at_once * max(p.checkpoint for p in plans),
    )


def _worst(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The largest of each part."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: max(part.get(name, 0) for part in parts) for name in names}


def _most(fits: Callable[[int], bool]) -> int:
    """The largest c >= 0 for which 1, 2, ... c fit."""
    c = 0
    while fits(c + 1):
        c += 1
    return c


def _sum(parts: Mapping[str, int]) -> str:
    return (
        " + ".join(f"{part} {size / GIB:.1f}" for part, size in parts.items())
        + f" = {sum(parts.values()) / GIB:.1f} GiB"
    )


def sweep_plan_table(p: SweepPlan) -> Table:
    """The plan as a table of two columns."""
    table = Table(title="Plan of the sweep", show_header=False)
    table.add_row("runs", f"{p.runs:,}, trials, baselines and confirmation together")
    table.add_row("trajectories", f"at most {p.trajectories:,} in all")
    room = ", ".join(f"{name} {count:,}" for name, count in p.limits.items())
    table.add_row("at once", f"{p.concurrent:,}, limited by {p.limit} (room for: {room})")
    how = "nested Ray Train workers" if p.nested else "in the Tune process itself"
    share = f", {p.gpu_share:g} of a GPU each" if p.gpu_share else ""
    table.add_row("a trial", f"workers: {p.workers}, {how}; CPUs: {p.cpus:g}{share}")
    table.add_row("disk", f"at most {human(p.disk)}", end_section=True)
    for part, size in p.device_memory.items():
        table.add_row(f"{part}, on the GPU", f"about {human(size)} a worker")
    for part, size in p.worker.items():
        table.add_row(part, f"about {human(size)} a worker")
    if p.drivers:
        table.add_row("the trial's own processes", f"about {human(p.drivers)} a trial")
    for part, size in p.shared.items():
        table.add_row(part, f"{human(size)} a node")
    table.add_row("memory of each node", f"about {human(_node_memory(p))}")
    return table


def _node_memory(p: SweepPlan) -> int:
    trials = ceil(p.concurrent / p.nodes)
    return sum(p.shared.values()) + trials * (p.workers * sum(p.worker.values()) + p.drivers)
