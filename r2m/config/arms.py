"""The name of what is compared, an arm, and the tags by which a run is found in a table of results."""

from typing import Any

ESTIMATORS = {
    "rloo": "RLOO", "grpo": "GRPO", "remax": "ReMax", "reinforce_pp": "REINFORCE++",
    "reinforce_pp_baseline": "REINFORCE++-baseline",
}  # fmt: skip


def arm_of(tree: dict[str, Any]) -> str:
    """Config.arm of a config's tree, which may be of an older version: what it lacks has its default."""
    a, r = tree["algorithm"], tree["reward"]
    estimator = ESTIMATORS[a["advantage"]]
    if a.get("epochs") == 0:
        return "SFT"
    trained, reshaped = _reward_model_of(tree.get("task", {})), _reshaped(r)
    if not r["feedback"]:
        return " + ".join([", ".join([estimator, *trained]), *reshaped])
    ablations = {
        "noise": r.get("hidden") == "noise",
        "no training": not r.get("train_head", True),
        "no BT": r.get("train_head", True) and r.get("alpha") == 1,
        "no GRE": r.get("train_head", True) and r.get("alpha") == 0,
        "no residual": not r.get("residual", True),
        "fixed Ω": r.get("omega_schedule") == "constant",
    }
    arm = "R2M" if estimator == "RLOO" else f"R2M+{estimator}"
    taught = {"labels": r.get("labels", 0) > 0, "anchored": r.get("anchor", 0) > 0}
    if taught["labels"] and r.get("omega_min") == 1:  # no feedback acts: a score layer that is trained
        arm = estimator
    named = (name for name, holds in (ablations | taught).items() if holds)
    return " + ".join([", ".join([arm, *named, *trained]), *reshaped])


def _reward_model_of(task: dict[str, Any]) -> list[str]:
    """What the embedded task's reward model is trained by, beside Bradley-Terry on its pairs."""
    return ["RRM"] * bool(task.get("rrm")) + ["ODIN"] * (task.get("odin", "none") != "none")


def _reshaped(reward: dict[str, Any]) -> list[str]:
    """What the scores are made of before the policy is trained on them."""
    ensembles = {"mean": "ensemble mean", "min": "ensemble min", "uwo": "UWO", "warm": "WARM"}
    parts = {name: reward.get("ensemble", "none") == how for how, name in ensembles.items()}
    form = "AdvPO" if reward.get("uncertainty_form") == "advpo" else "uncertainty"
    parts |= {form: reward.get("uncertainty", 0) > 0}
    parts |= {"length penalty": reward.get("length_penalty", 0) > 0, "PAR": reward.get("shaping", "none") == "par"}
    return [name for name, holds in parts.items() if holds]


def tags_of(tree: dict[str, Any]) -> dict[str, str]:
    """r2m.arm and r2m.seed: what every run's journal is started with, and what those of older versions lack.

    `tree`: as of `arm_of`, or a sweep's file, whose arm is "sweep".
    """
    if "reward" not in tree:
        return {"r2m.arm": "sweep"}
    seed = tree.get("run", {}).get("seed")
    return {"r2m.arm": arm_of(tree)} | ({} if seed is None else {"r2m.seed": str(seed)})
