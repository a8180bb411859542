"""Runs as arms: those that differ in nothing but the seed are repeats of one arm.

Arms are compared within a setup: the same task, data, starting policy, frozen reward model and evaluation. What runs
of two setups measure is not the same thing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from r2m.config import Algorithm, ForumTask, Policy, Reward, Run, TextTask
from r2m.runs.journal import JournalView

Settings = dict[str, Any]  # dotted key -> value

TASKS: dict[str, type[BaseModel]] = {"forum": ForumTask, "text": TextTask}
SECTIONS: dict[str, type[BaseModel]] = {
    "policy": Policy,
    "reward": Reward,
    "algorithm": Algorithm,
    "run": Run,
}
OF_SETUP = ("policy.model", "reward.model", "reward.dtype", "run.eval_queries", "run.eval_seed", "run.judge")
WITHOUT_HEAD = (
    "model",
    "dtype",
    "feedback",
    "no_eos",
    "no_eos_value",
)  # of `reward`: what matters to RLOO too


@dataclass(frozen=True)
class Arm:
    """`runs`: one a seed, in the seeds' order. `label` says what sets it apart from arms of its kind in the setup."""

    label: str
    kind: str  # JournalView.arm
    runs: tuple[JournalView, ...]

    @property
    def finished(self) -> dict[int, JournalView]:
        """By seed."""
        return {seed_of(view): view for view in self.runs if view.status == "finished"}


@dataclass(frozen=True)
class Setup:
    """`label`: what sets it apart from the other setups, or the task and the policy where there is one only."""

    label: str
    arms: tuple[Arm, ...]


def seed_of(view: JournalView) -> int:
    return view.start["config"]["run"]["seed"]


def setups(views: Sequence[JournalView]) -> tuple[list[Setup], list[str]]:
    """The setups and their arms, in the order of their first runs; and the names of runs left out, since another run
    of the same arm and seed is here and has come at least as far."""
    by_setup: dict[str, list[JournalView]] = {}
    for view in views:
        by_setup.setdefault(_key(_setup(view)), []).append(view)
    labels = _labels([_setup(group[0]) for group in by_setup.values()])
    out, repeated = [], []
    for label, group in zip(labels, by_setup.values(), strict=True):
        arms, again = _arms(group)
        start = group[0].start
        out.append(Setup(label or f"{start['task']}, policy {start['policy']}", tuple(arms)))
        repeated += again
    return out, repeated


def _arms(views: Sequence[JournalView]) -> tuple[list[Arm], list[str]]:
    by_arm: dict[str, list[JournalView]] = {}
    for view in views:
        by_arm.setdefault(_key(_arm(view)), []).append(view)
    kinds: dict[str, list[str]] = {}
    for key, group in by_arm.items():
        kinds.setdefault(group[0].arm, []).append(key)
    apart: dict[str, str] = {}
    for keys in kinds.values():
        apart |= dict(zip(keys, _labels([_arm(by_arm[key][0]) for key in keys]), strict=True))
    arms, repeated = [], []
    for key, group in by_arm.items():
        runs: dict[int, JournalView] = {}
        for view in sorted(group, key=lambda v: (v.status == "finished", len(v.rounds)), reverse=True):
            if runs.setdefault(seed_of(view), view) is not view:
                repeated.append(view.run_id)
        kind = group[0].arm
        label = f"{kind} · {apart[key]}" if apart[key] else kind
        arms.append(Arm(label, kind, tuple(runs[seed] for seed in sorted(runs))))
    return arms, repeated


def _settings(view: JournalView) -> Settings:
    """Of a journal of an older version too: what it lacks has its default."""
    tree = view.start["config"]
    models = SECTIONS | {"task": TASKS[tree["task"]["kind"]]}
    flat: Settings = {}
    for section, model in models.items():
        defaults = {k: f.get_default() for k, f in model.model_fields.items() if not f.is_required()}
        flat |= {f"{section}.{key}": value for key, value in (defaults | tree.get(section, {})).items()}
    return flat


def _setup(view: JournalView) -> Settings:
    own = {key: value for key, value in _settings(view).items() if key.startswith("task.") or key in OF_SETUP}
    return own | {"data": view.start["data_hash"]}


def _arm(view: JournalView) -> Settings:
    """What can change the result, beside the setup and the seed."""
    settings = _settings(view)
    unused = set(OF_SETUP)
    if not settings["reward.feedback"]:
        unused |= {f"reward.{key}" for key in Reward.model_fields if key not in WITHOUT_HEAD}
    return {
        key: value for key, value in settings.items() if not key.startswith(("task.", "run.")) and key not in unused
    }  # fmt: skip


def _key(settings: Settings) -> str:
    return json.dumps(settings, sort_keys=True)


def _labels(of: Sequence[Settings]) -> list[str]:
    """What each has that not all of them have; "" where there is one only."""
    keys = sorted({key for settings in of for key in settings})
    differing = [key for key in keys if len({json.dumps(settings.get(key)) for settings in of}) > 1]
    short = [", ".join(f"{key}={_value(settings, key)}" for key in differing) for settings in of]
    if len(set(short)) == len(of):
        return short
    return [", ".join(f"{key}={settings.get(key)}" for key in differing) for settings in of]


def _value(settings: Mapping[str, Any], key: str) -> str:
    value = settings.get(key)
    if isinstance(value, bool) or value is None:
        return {True: "on", False: "off", None: "null"}[value]
    return f"{value:.3g}" if isinstance(value, float) else str(value)
