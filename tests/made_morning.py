"""Executions made by hand: a real journal of a pipeline, and runs that it trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from made_runs import MadeRuns

from r2m.results.comparison import Comparison, compare_runs
from r2m.results.morning import Morning, morning
from r2m.runs.journal import Journal, read

STEPS = {
    "sft": "sft", "reward": "reward-model", "arms": "train", "assessed": "evaluate", "alarm": "alarm-check",
    "compared": "compare", "champion": "promote",
}  # fmt: skip
FIELDS = ("eval/gold", "eval/kl_sequence", "eval/vanilla", "alarm/on")
LAST_NIGHT = "nightly-20261130T0300Z-0a1b2c"


def execution(
    storage: Path, *events: dict[str, Any], steps: dict[str, str] = STEPS, status: str = "finished",
    run_id: str = "nightly-20261201T0300Z-0a1b2c", name: str = "nightly", reason: str = "",
) -> Any:  # fmt: skip
    """Its journal's view. `events`: of its steps, and verdicts."""
    tree = {"pipeline": name, "parameters": {}, "steps": {step: {"use": use} for step, use in steps.items()}}
    with Journal(storage / "pipelines" / run_id / "journal.jsonl") as journal:
        journal.start(
            run_id=run_id, task="pipeline", policy=name, config=tree, versions={}, git={}, config_hash="c",
            data_hash="d", datasets=[], experiment=f"r2m/pipelines/{name}",
            tags={"r2m.pipeline": name, "r2m.role": "pipeline", "r2m.arm": "pipeline", "r2m.tick": "20261201T0300Z"},
        )  # fmt: skip
        journal.event("resume")
        for event in events:
            journal.event(**event)
        if status != "running":
            journal.event(status, **({"reason": reason} if reason else {}))
    return read(journal.path)


def step(name: str, state: str = "done", use: str = "", **facts: Any) -> dict[str, Any]:
    known = {"seconds": 12.0, "made_by": f"nightly-20261201T0300Z-0a1b2c.{name}"} if state == "done" else {}
    known = {"seconds": 70.0, "made_by": f"{LAST_NIGHT}.{name}"} if state == "cached" else known
    return {"name": "step", "step": name, "use": use or STEPS.get(name, "train"), "state": state} | known | facts


def verdict(text: str, promoted: bool, conditions: Sequence[tuple[bool, str]] = (), step: str = "champion") -> Any:
    return {"name": "verdict", "step": step, "text": text, "promoted": promoted, "conditions": conditions}


def trained_runs(storage: Path, alarm: int | None = None, label: str = "R2M", seeds: int = 5) -> Any:
    """Runs of RLOO and of an arm above it, and their comparison."""
    runs = MadeRuns(storage)
    for seed in range(seeds):
        for n, settings in enumerate(([], ["reward.feedback=on"])):
            curve = [(0.1 * t + 0.3 * n * t / 8 + seed / 50, t**1.5 / 2, 0.2 * t, 0.0) for t in range(1, 9)]
            tags = {"r2m.sweep": "s", "r2m.trial": label if n else "RLOO", "r2m.role": "baseline"}
            runs.run(f"n{n}-{seed}", *curve, settings=settings, seed=seed, fields=FIELDS, start={"tags": tags},
                     alarm=alarm if n and seed == 1 else None)  # fmt: skip
    comparison: Comparison = compare_runs(runs.results())[0][0]
    return runs.views, comparison


def made_morning(storage: Path, *events: dict[str, Any], runs: Any = None, **how: Any) -> Morning:
    views, comparison = runs or ((), None)
    return morning(execution(storage, *events, **how), views, comparison)
