"""The plan's memory against what a worker takes at its peak: each case in processes of its own, one a worker.

    python benchmarks/plan_memory.py [CASE ...] [--models FOLDER] [--data FILE]

Of a case with several workers the fullest counts. The peak is the process's resident set (VmHWM), with its libraries
and the pages of files that are mapped, as the plan counts them. FOLDER has what `r2m models fetch smollm2-135m --out`
writes, and beside it a reward model of that size is made; without it the forum's case alone is run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

from r2m.config import Config, load, validate
from r2m.training.plan import arithmetic
from r2m.training.preflight import plan_for
from r2m.workers import Workers

# Two microbatches a step, and two steps: AdamW's states are there from the second on.
SMOLLM2 = (
    "smollm2_tldr_small", "algorithm.rounds=1", "algorithm.epochs=2", "algorithm.responses=3",
    "algorithm.microbatch=3", "algorithm.max_response_tokens=16", "run.eval_every=0",
)  # fmt: skip
ONE, TWO = (*SMOLLM2, "algorithm.queries=2"), (*SMOLLM2, "algorithm.queries=4", "run.workers=2")
CASES: dict[str, tuple[str, ...]] = {
    "forum": ("forum", "algorithm.trajectories=null", "algorithm.rounds=1", "run.eval_every=0"),
    "unsharded": ONE,
    "recompute": (*ONE, "policy.recompute=true"),
    "lora": (*ONE, "policy.lora.rank=16"),
    "zero2": (*TWO, "policy.sharding=zero2"),
    "zero3": (*TWO, "policy.sharding=zero3"),
}


def peak_mib(config: Config) -> float:
    """Of the fullest worker."""
    from r2m.training.start import new_run

    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        run = new_run(validate(config.model_dump() | {"run": config.run.model_dump() | {"storage": scratch}}))
        peaks = spawn.Queue()
        tree = run.config.model_dump(mode="json")
        workers = [
            spawn.Process(target=_work, args=(tree, run.folder, run.models, rank, f"{scratch}/rendezvous", peaks))
            for rank in range(config.run.workers)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            if worker.exitcode:
                raise SystemExit(f"a worker ended with exit code {worker.exitcode}")
        return max(peaks.get() for _ in workers)


def _work(tree: dict[str, Any], folder: Path, models: tuple[str, str], rank: int, meet: str, peaks: Any) -> None:
    """In a process of its own."""
    import torch.distributed as dist

    from r2m.training.loop import run_loop

    config = validate(tree)
    if config.run.workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=config.run.workers)
    run_loop(config, folder, models, Workers(rank, config.run.workers))
    lines = Path("/proc/self/status").read_text().splitlines()
    peaks.put(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024)


def forum_models(folder: Path) -> tuple[str, ...]:
    """Settings that name models of the forum's sizes, untrained."""
    from transformers import LlamaForSequenceClassification

    from r2m.models.saving import save_model
    from r2m.stages.forum import new_policy
    from r2m.tasks.forum import forum_tokenizer

    tokenizer = forum_tokenizer()
    policy = new_policy(tokenizer)
    save_model(folder / "policy", policy, tokenizer)
    policy.config.num_labels, policy.config.reward_mean = 1, 0.0
    save_model(folder / "reward", LlamaForSequenceClassification(policy.config), tokenizer)
    return f"policy.model={folder / 'policy'}", f"reward.model={folder / 'reward'}"


def models_in(folder: Path) -> tuple[str, ...]:
    """Settings that name SmolLM2 and a reward model made of it, without a training: only sizes matter."""
    reward = folder.with_name(f"{folder.name}-reward")
    if not reward.exists():
        from transformers import AutoTokenizer, LlamaForSequenceClassification

        model = LlamaForSequenceClassification.from_pretrained(folder, num_labels=1)
        model.config.reward_mean, model.config.pad_token_id = 0.0, 0
        model.save_pretrained(reward)
        AutoTokenizer.from_pretrained(folder).save_pretrained(reward)
    return f"policy.model={folder}", f"reward.model={reward}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--models", type=Path, metavar="FOLDER")
    parser.add_argument("--data", metavar="FILE", help="rows with a prompt column, for SmolLM2")
    given = parser.parse_args()
    rows, scratch = [], tempfile.TemporaryDirectory()
    for case in given.cases or [case for case in CASES if given.models or case == "forum"]:
        recipe, *sets = CASES[case]
        if case == "forum":
            sets += forum_models(Path(scratch.name))
        else:
            sets += [*models_in(given.models), f"task.data={given.data}"]
        config = load(recipe, [*sets, "run.device=cpu"])
        plan = plan_for(config)
        peak = peak_mib(config)
        planned = plan.peak_memory / 2**20
        print(f"{case}: planned {arithmetic(plan.peak)}; measured {peak:,.0f} MiB", flush=True)
        rows.append([case, f"{planned:,.0f}", f"{peak:,.0f}", f"{planned / peak:.2f}"])
    print("| case | planned, MiB | measured, MiB | ratio |\n| --- | ---: | ---: | ---: |")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
