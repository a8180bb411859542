"""A round of each rival in scoring against a round of plain RLOO, by turns in one process: CPU seconds, and what the
plan counts beyond RLOO's. The forum recipe, its models hardly trained: responses are about as long as the limit.

    python benchmarks/rivals.py
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator

from side_by_side import one_thread, print_table, ratios, spread  # isort: skip

from r2m.algorithm import Round
from r2m.config import Config, load
from r2m.stages.prepare import prepare
from r2m.training.plan import plan
from r2m.training.preflight import shapes_for
from r2m.training.trainer import Trainer
from r2m.workers import Workers

WARM_UP, ROUNDS = 2, 7
PLAIN = "reward.feedback=off"
QUICK = ("task.sft_steps=20", "task.preference_pairs=200", "run.device=cpu")
ARMS: dict[str, tuple[str, ...]] = {
    "RLOO": (PLAIN,),
    "R2M": (),
    "RLOO + length penalty": (PLAIN, "reward.length_penalty=0.05"),
    "RLOO + PAR, 1 reference": (PLAIN, "reward.shaping=par"),
    "RLOO + PAR, 10 references": (PLAIN, "reward.shaping=par", "reward.par_references=10"),
    "R2M + PAR, 1 reference": ("reward.shaping=par",),
    "RLOO + UWO, 5 members": (PLAIN, "reward.ensemble=uwo"),
    "RLOO + WARM, 5 members": (PLAIN, "reward.ensemble=warm"),
    "RLOO + uncertainty": (PLAIN, "reward.uncertainty=1"),
    "RLOO + AdvPO": (PLAIN, "reward.uncertainty=1", "reward.uncertainty_form=advpo"),
}


def cpu_seconds() -> float:
    """Of this process and those that it has waited for."""
    return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def main() -> None:
    one_thread()
    with tempfile.TemporaryDirectory() as storage:
        configs = {arm: load("forum", [f"run.storage={storage}", *QUICK, *own]) for arm, own in ARMS.items()}
        prepared: dict[str, float] = {}
        models = {}
        for arm, config in configs.items():
            started = cpu_seconds()
            models[arm] = prepare(config)
            prepared[arm] = cpu_seconds() - started
        trainers = {arm: Trainer(config, models[arm], Workers()) for arm, config in configs.items()}
        rounds: dict[str, Iterator[Round]] = {arm: trainer.rounds(1) for arm, trainer in trainers.items()}
        cpu: dict[str, list[float]] = {arm: [] for arm in ARMS}
        for step in range(WARM_UP + ROUNDS):
            for arm in list(ARMS) if step % 2 else reversed(list(ARMS)):
                started = time.process_time()
                next(rounds[arm])
                cpu[arm].append(time.process_time() - started)
        held = {arm: sum(planned(config).values()) / 2**20 for arm, config in configs.items()}
    plain = cpu["RLOO"][WARM_UP:]
    print_table(
        ("arm", "CPU s a round", "ratio to RLOO", "MiB held beyond RLOO's", "CPU s to prepare beyond the arms above"),
        [
            (arm, spread(own[WARM_UP:], 3), spread(ratios(own[WARM_UP:], plain)), f"{held[arm] - held['RLOO']:.1f}",
             f"{prepared[arm]:.0f}")
            for arm, own in cpu.items()
        ],
    )  # fmt: skip


def planned(config: Config) -> dict[str, int]:
    return plan(config, *shapes_for(config)).memory


if __name__ == "__main__":
    main()
