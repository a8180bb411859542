"""A round of R2M by two workers, replicated against spread by DeepSpeed: CPU seconds, wall time, and memory.

Each contender has processes of its own, since what a process has held once stays in its peak; they take turns.
Memory is the peak of a worker's resident set, less what it holds before a model is loaded.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
from multiprocessing.queues import Queue
from pathlib import Path

import torch.distributed as dist
from side_by_side import llama, llama_config, llama_scorer, one_thread, print_table, spread
from transformers import LlamaConfig

from r2m.config import Config, load
from r2m.models.saving import save_model
from r2m.tasks.forum import forum_tokenizer
from r2m.training.trainer import Trainer
from r2m.workers import Workers

CONTENDERS = {
    "none": (), "zero1": ("sharding=zero1",), "zero2": ("sharding=zero2",), "zero3": ("sharding=zero3",),
    "zero3, all offloaded": ("sharding=zero3", "offload=all"),
}  # fmt: skip
WORKERS, TURNS, WARM_UP, ROUNDS = 2, 3, 1, 3
PHASES = ("sample", "annotate", "policy", "head")


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def worker(rank: int, config: Config, models: tuple[str, str], rendezvous: str, results: Queue[tuple]) -> None:
    one_thread()
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=WORKERS)
    if config.policy.sharding != "none":
        os.environ.update(DS_ACCELERATOR="cpu", LOCAL_RANK=str(rank))
        import deepspeed  # noqa: F401
    before, rounds = peak_mib(), []
    started = time.perf_counter()
    for r in Trainer(config, models, Workers(rank, WORKERS)).rounds(1):
        now = time.perf_counter()
        rounds.append(([r.metrics[f"time/{phase}_s"] for phase in PHASES], now - started))
        started = now
    results.put((rounds[WARM_UP:], peak_mib() - before))
    dist.barrier()


def measure(config: Config, models: tuple[str, str], folder: Path) -> tuple[list, list[float]]:
    spawn = multiprocessing.get_context("spawn")
    results, rendezvous = spawn.Queue(), tempfile.mktemp(dir=folder)
    args = (config, models, rendezvous, results)
    processes = [spawn.Process(target=worker, args=(rank, *args)) for rank in range(WORKERS)]
    for process in processes:
        process.start()
    got = [results.get(timeout=1800) for _ in processes]
    for process in processes:
        process.join()
    return [r for rounds, _ in got for r in rounds], [memory for _, memory in got]


def made_models(shape: LlamaConfig, folder: Path) -> tuple[str, str]:
    for name, model in (("policy", llama(shape)), ("reward", llama_scorer(shape))):
        save_model(folder / name, model, forum_tokenizer())
    return str(folder / "policy"), str(folder / "reward")


def main() -> None:
    shape = llama_config(len(forum_tokenizer()), 512, 8)
    parameters = sum(p.numel() for p in llama(shape).parameters())
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp)
        models = made_models(shape, folder)
        configs = {
            name: load("forum", [
                f"policy.model={models[0]}", f"reward.model={models[1]}", f"run.storage={folder}", "run.device=cpu",
                "task.posts=40", "algorithm.queries=8", "algorithm.microbatch=8", "run.eval_queries=2",
                f"algorithm.rounds={WARM_UP + ROUNDS}", f"run.workers={WORKERS}",
                *(f"policy.{setting}" for setting in settings),
            ])
            for name, settings in CONTENDERS.items()
        }  # fmt: skip
        found: dict[str, tuple[list, list[float]]] = {name: ([], []) for name in CONTENDERS}
        for _ in range(TURNS):
            for name, config in configs.items():
                for kept, new in zip(found[name], measure(config, models, folder), strict=True):
                    kept.extend(new)
    rows = []
    for i, phase in enumerate(PHASES):
        rows.append([phase, *(spread([cpu[i] for cpu, _ in found[name][0]]) for name in CONTENDERS)])
    rows.append(["**round**", *(spread([sum(cpu) for cpu, _ in found[name][0]]) for name in CONTENDERS)])
    rows.append(["round, wall time", *(spread([wall for _, wall in found[name][0]]) for name in CONTENDERS)])
    rows.append(["memory, MiB", *(spread(found[name][1], 0) for name in CONTENDERS)])
    a = next(iter(configs.values())).algorithm
    title = f"{a.queries} prompts x K = {a.responses}, {a.epochs} epochs, {parameters / 1e6:.0f}M parameters"
    print_table([f"{WORKERS} workers, {title}", *CONTENDERS], rows)


if __name__ == "__main__":
    main()
