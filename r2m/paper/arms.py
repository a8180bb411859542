"""The paper's arms, and the sweep without a search that runs each of them on each seed."""

from collections.abc import Sequence
from math import ceil
from typing import Any

from r2m.config import Config

OFF: dict[str, Any] = {"reward.feedback": False}
ON: dict[str, Any] = {"reward.feedback": True, "algorithm.advantage": "rloo"}
FIXED_OMEGA = 0.5  # of "R2M, fixed omega": half of the frozen embedding in every round

ARMS: dict[str, dict[str, Any]] = {  # label -> settings over the recipe's
    # Tables 2 and 4
    "SFT": OFF | {"algorithm.epochs": 0},
    "GRPO": OFF | {"algorithm.advantage": "grpo"},
    "ReMax": OFF | {"algorithm.advantage": "remax"},
    "REINFORCE++": OFF | {"algorithm.advantage": "reinforce_pp"},
    "RLOO": OFF | {"algorithm.advantage": "rloo"},
    "R2M": ON,
    # Table 5; the last one is not in the paper
    "R2M, noise": ON | {"reward.hidden": "noise"},
    "R2M, no training": ON | {"reward.train_head": False},
    "R2M, no BT": ON | {"reward.alpha": 1.0},
    "R2M, no GRE": ON | {"reward.alpha": 0.0},
    "R2M, fixed omega": ON | {"reward.omega_schedule": "constant", "reward.omega_min": FIXED_OMEGA},
}
METHODS = ("SFT", "GRPO", "ReMax", "REINFORCE++", "RLOO", "R2M")  # Table 2's rows
COLLAPSE = ("SFT", "RLOO", "R2M")  # Table 4's
ABLATIONS = ("RLOO", "R2M, noise", "R2M, no training", "R2M, no BT", "R2M, no GRE", "R2M, fixed omega", "R2M")

EVALUATIONS = 12  # of a run, at least
CHECKPOINTS_A_RUN = 4  # spread over a run: Fig. 1b's t = 60, 120, 180, 240
MATCHED_KL = 10.0  # nats, at which the vanilla reward is read where nothing else judges


def sweep_tree(recipe: str, base: Config, settings: dict[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
    """A sweep file's tree. `settings`: of all arms, by dotted key; `base`: the recipe with them."""
    every = ceil(base.algorithm.total_rounds / CHECKPOINTS_A_RUN)
    return {
        "recipe": recipe,
        "set": settings | {"run.checkpoint_every": every, "run.keep_checkpoints": CHECKPOINTS_A_RUN},
        "objectives": [objective(base)],
        "baselines": ARMS,
        "seeds": list(seeds),
        "confirm": [],
        "budget": {"trials": 0, "evaluations": EVALUATIONS},
    }


def objective(base: Config) -> dict[str, Any]:
    """What orders the arms in the sweep's own report: gold, a judge's win rate, or the vanilla reward at one KL."""
    if base.task.kind == "forum":
        return {"metric": "eval/gold"}
    if base.run.judge is not None:
        return {"metric": "eval/win_rate"}
    return {"metric": "eval/vanilla", "matched_kl": MATCHED_KL}
