"""Runs of the paper's arms made by hand: real journals, and assessments."""

from pathlib import Path
from typing import Any

from made_assessments import assessment

from r2m.config import load, override
from r2m.paper.arms import ARMS
from r2m.results.assessment import (
    Accuracy,
    Assessment,
    AtEqualLength,
    Followed,
    OverTraining,
    PairSet,
    Similarities,
    Similarity,
    Wins,
)
from r2m.results.experiment import Experiment
from r2m.results.table import Result, by_trial
from r2m.runs.journal import Journal, JournalView, read
from r2m.sweeps.settings import slug

SETS = ("held-out prompts, the supervised policy's responses", "held-out prompts, the trained policy's responses")
CLAIMED = {
    "SFT": 0.5, "GRPO": 0.52, "ReMax": 0.53, "REINFORCE++": 0.55, "RLOO": 0.56, "R2M": 0.66, "R2M, noise": 0.51,
    "R2M, no training": 0.52, "R2M, no BT": 0.62, "R2M, no GRE": 0.63, "R2M, fixed omega": 0.6,
}  # fmt: skip
REFUTED = CLAIMED | {
    "R2M": 0.46, "R2M, noise": 0.7, "R2M, no training": 0.7, "R2M, no BT": 0.8, "R2M, no GRE": 0.8,
}  # fmt: skip


def cost(factor: float = 1.0) -> dict[str, Any]:
    """R2M's memory 1.04 of RLOO's, its rounds 1.04 and 1.08; all of it times `factor`."""
    own = (("RLOO", 100.0, 0.5), ("R2M", 104.0, 0.52), ("R2M", 104.0, 0.54), ("RLOO", 100.0, 0.5))
    measurements = []
    for arm, peak, seconds in own:
        f = factor if arm == "R2M" else 1.0
        phases = {
            "time/sample_s": 0.1,
            "time/annotate_s": 0.1,
            "time/policy_s": f * seconds - 0.21,
            "time/head_s": 0.01,
        }
        measurements.append({"arm": arm, "peak_mib": f * peak, "round_s": f * seconds, "phases": phases})
    return {"device": "cpu", "rounds": 7, "measurements": measurements}


class MadePaper:
    def __init__(self, folder: Path, name: str = "paper-forum") -> None:
        self.folder, self.name = folder, name
        self.runs: dict[str, JournalView] = {}  # by name
        self.assessments: dict[str, Assessment] = {}
        self.group: dict[str, str] = {}  # experiment and parent of the runs, for MLflow

    def name_of(self, arm: str, seed: int) -> str:
        return f"{self.name}-{slug(arm)}-s{seed}"

    def run(self, arm: str, seed: int, *rounds: dict[str, float]) -> None:
        """A finished run."""
        name = self.name_of(arm, seed)
        settings = [override(key, value) for key, value in ARMS[arm].items()]
        config = load("forum", [*settings, f"run.seed={seed}"]).model_dump(mode="json")
        with Journal(self.folder / "runs" / name / "journal.jsonl") as journal:
            journal.start(
                run_id=name, task="forum", policy="forum-policy", config=config, versions={"torch": "2.10"},
                git={"commit": "abc", "dirty": False}, config_hash="c", data_hash="d", datasets=[],
                tags={"r2m.trial": arm}, **self.group,
            )  # fmt: skip
            for step, metrics in enumerate(rounds, 1):
                journal.round(step, metrics | {"time/round_s": 2.0})
            journal.event("finished", step=len(rounds))
        self.runs[name] = read(journal.path)

    def assess(
        self, arm: str, seed: int, *, rate: float = 0.5, controlled: float | None = None,
        over_references: float = 0.5,
        gold: float | None = 0.3, characters: float = 60.0, no_space: float = 0.1, judge: str = "gold",
        accuracies: tuple[tuple[float, float, float], ...] = (), similarity: tuple[float, float, float] | None = None,
        steps: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        """`accuracies`: without, before and after, of each of SETS. `similarity`: hacking, normal, cross."""

        def rated(against: str, value: float) -> Wins:
            c = None if controlled is None else AtEqualLength(controlled, around(controlled))
            return Wins(judge, against, value, around(value), 0, 0, 0, 8, c)

        def accuracy(value: float) -> Accuracy:
            return Accuracy(value, around(value), 0, 8)

        name = self.name_of(arm, seed)
        similar = similarity and Similarity(
            *similarity, Similarities(*(kind - 0.1 for kind in similarity)), 3, 2,
            [[1, 0.7, 0.4, 0.4], [0.7, 1, 0.4, 0.4], [0.4, 0.4, 1, 0.8], [0.4, 0.4, 0.8, 1]],
            ["hacking", "hacking", "normal", "normal"], ["r"] * 4, "hacking: <half> & more",
        )  # fmt: skip
        matrix = [[1 - 0.1 * abs(i - j) for j in range(len(steps))] for i in range(len(steps))]
        self.assessments[name] = assessment(
            run=name, arm=arm, seed=seed, prompts=8,
            means={"gold": gold, "vanilla": 1.0, "proxy": 1.0, "kl": 2.0, "tokens": 10.0, "characters": characters,
                   "no_space_share": no_space},
            win_rates=[rated("sft", rate), rated("reference", over_references)],
            reward_accuracy=[
                PairSet(pairs, 8, 0, {}, None, *map(accuracy, conditions))
                for pairs, conditions in zip(SETS, accuracies, strict=False)
            ],
            similarity=similar,
            over_training=OverTraining(list(steps), matrix, [Followed("p", "r", matrix)] * 4) if steps else None,
        )  # fmt: skip

    def results(self, seeds: int = 5, **fields: Any) -> Experiment:
        """As they are now. What is assessed and has no run of its own has an empty one."""
        for name, known in self.assessments.items():
            if name not in self.runs:
                self.run(known.arm, known.seed)
        arms = by_trial(Result(view, self.assessments.get(name)) for name, view in self.runs.items())
        return Experiment(self.name, "forum", tuple(range(seeds)), ARMS, arms, **fields)


def around(value: float) -> tuple[float, float]:
    return value - 0.1, value + 0.1


def whole(made: MadePaper, seeds: int = 5, claimed: bool = True) -> Experiment:
    """All arms with everything. With five seeds every claim of the paper holds, or, where not `claimed`, fails."""
    heights = CLAIMED if claimed else REFUTED
    low = -0.04 if claimed else 0.04
    for arm, height in heights.items():
        full = arm == "R2M"
        for seed in range(seeds):
            jitter = (0.003 if full else 0.001) * seed
            rounds = [
                {
                    "reward/proxy": height + 0.1 * t + jitter, "reward/gold": 0.3 - 0.01 * t,
                    "train/policy_loss": -height - 0.01 * t - jitter, "kl/token": 0.1 * t * height + jitter,
                    "kl/sequence": t * height,
                    **({"eval/proxy": height + 0.1 * t + jitter, "eval/kl_sequence": float(t),
                        "eval/vanilla": height + (0.08 * t - 0.1 if claimed else 1.5 - 0.08 * t),
                        "eval/noise": height + (0.05 * t - 0.3 if claimed else 2.0)} if t % 2 == 0 else {}),
                }
                for t in range(1, 9)
            ]  # fmt: skip
            made.run(arm, seed, *rounds)
            references = {"SFT": 0.34, "RLOO": 0.09, "R2M": 0.6 if claimed else 0.1}
            r2m, pair = arm.startswith("R2M"), arm in ("RLOO", "R2M")
            made.assess(
                arm, seed, rate=height + jitter, controlled=height - 0.01 + jitter,
                gold=references.get(arm, height) - jitter * (arm != "SFT"),
                characters=80.0 + (-10 if claimed else 10) * full - seed,
                over_references=references.get(arm, 0.4) + jitter * (arm != "SFT"),
                no_space=0.7 if arm == "RLOO" else 0.05,
                accuracies=((0.72, 0.72 + low + jitter, 0.72 - 1.5 * low), (0.6, 0.6, 0.6 + jitter)) if r2m
                else ((0.72, 0.72, 0.72), (0.6, 0.6, 0.6)),
                similarity=(0.67 + jitter, 0.75, 0.45 if claimed else 0.9) if pair else None,
                steps=(0, 15, 30, 45, 60) if pair else (),
            )  # fmt: skip
    return made.results(seeds, cost=cost(1.0 if claimed else 1.5))
