"""Runs of the paper's arms made by hand: real journals, and assessments of the shape that assess gives."""

from pathlib import Path
from typing import Any

from r2m.config import load, override
from r2m.paper.arms import ARMS
from r2m.paper.results import Results, Tree
from r2m.runs.journal import Journal, JournalView, read
from r2m.sweeps.settings import slug

SETS = (
    "held-out prompts, the supervised policy's responses",
    "held-out prompts, the trained policy's responses",
)
CLAIMED = {
    "SFT": 0.5, "GRPO": 0.52, "ReMax": 0.53, "REINFORCE++": 0.55, "RLOO": 0.56, "R2M": 0.66, "R2M, noise": 0.51,
    "R2M, no training": 0.52, "R2M, no BT": 0.62, "R2M, no GRE": 0.63, "R2M, fixed omega": 0.6,
}  # fmt: skip
REFUTED = CLAIMED | {
    "R2M": 0.46, "R2M, noise": 0.7, "R2M, no training": 0.7, "R2M, no BT": 0.8, "R2M, no GRE": 0.8,
}  # fmt: skip


def cost(factor: float = 1.0) -> Tree:
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
        self.runs: dict[str, dict[int, JournalView]] = {arm: {} for arm in ARMS}
        self.assessments: dict[str, dict[int, Any]] = {arm: {} for arm in ARMS}

    def run(self, arm: str, seed: int, *rounds: dict[str, float]) -> None:
        """A finished run."""
        name = f"{self.name}-{slug(arm)}-s{seed}"
        settings = [override(key, value) for key, value in ARMS[arm].items()]
        config = load("forum", [*settings, f"run.seed={seed}"]).model_dump(mode="json")
        with Journal(self.folder / "runs" / name / "journal.jsonl") as journal:
            journal.start(
                run_id=name, task="forum", policy="forum-policy", config=config, versions={"torch": "2.10"},
                git={"commit": "abc", "dirty": False}, config_hash="c", data_hash="d", datasets=[],
            )  # fmt: skip
            for step, metrics in enumerate(rounds, 1):
                journal.round(step, metrics | {"time/round_s": 2.0})
            journal.event("finished", step=len(rounds))
        self.runs[arm][seed] = read(journal.path)

    def assess(
        self, arm: str, seed: int, *, rate: float = 0.5, controlled: float | None = None,
        over_references: float = 0.5,
        gold: float | None = 0.3, characters: float = 60.0, no_space: float = 0.1, judge: str = "gold",
        accuracies: tuple[tuple[float, float, float], ...] = (), similarity: tuple[float, float, float] | None = None,
        steps: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        """`accuracies`: without, before and after, of each of SETS. `similarity`: hacking, normal, cross."""

        def rated(against: str, value: float) -> dict[str, Any]:
            c = (
                None
                if controlled is None
                else {"rate": controlled, "interval": [controlled - 0.1, controlled + 0.1]}
            )
            return {"judge": judge, "against": against, "rate": value, "interval": [value - 0.1, value + 0.1],
                    "ties": 0, "unanswered": 0, "n": 8, "length_controlled": c}  # fmt: skip

        def accuracy(value: float) -> dict[str, Any]:
            return {"accuracy": value, "interval": [value - 0.1, value + 0.1]}

        kinds = [] if similarity is None else similarity
        self.assessments[arm][seed] = {
            "version": 1, "run": f"{self.name}-{slug(arm)}-s{seed}", "arm": arm, "seed": seed, "config_hash": "c",
            "prompts": 8, "eval_seed": 0,
            "means": {"gold": gold, "vanilla": 1.0, "proxy": 1.0, "kl": 2.0, "tokens": 10.0,
                      "characters": characters, "no_space_share": no_space},
            "win_rates": [rated("sft", rate), rated("reference", over_references)],
            "reward_accuracy": [
                {"pairs": pairs, "n": 8, "without": accuracy(w), "before": accuracy(b), "after": accuracy(a)}
                for pairs, (w, b, a) in zip(SETS, accuracies, strict=False)
            ],
            "similarity": None if similarity is None else {
                **dict(zip(("hacking", "normal", "cross"), kinds, strict=True)), "prompts": 3, "per_prompt": 2,
                "response_only": dict(zip(("hacking", "normal", "cross"), (k - 0.1 for k in kinds), strict=True)),
                "matrix": [[1, 0.7, 0.4, 0.4], [0.7, 1, 0.4, 0.4], [0.4, 0.4, 1, 0.8], [0.4, 0.4, 0.8, 1]],
                "labels": ["hacking", "hacking", "normal", "normal"], "what": "hacking: <half> & more",
            },
            "over_training": None if not steps else {
                "steps": list(steps), "mean": _matrix(len(steps)),
                "pairs": [{"prompt": "p", "response": "r", "matrix": _matrix(len(steps))}] * 4,
            },
        }  # fmt: skip

    def results(self, seeds: int = 5, **fields: Any) -> Results:
        return Results(self.name, "forum", tuple(range(seeds)), self.runs, self.assessments, **fields)


def _matrix(n: int) -> list[list[float]]:
    return [[1 - 0.1 * abs(i - j) for j in range(n)] for i in range(n)]


def whole(made: MadePaper, seeds: int = 5, claimed: bool = True) -> Results:
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
