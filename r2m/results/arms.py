"""Runs as arms: those that differ in nothing but the seed are repeats of one arm.

Arms are compared within a setup: the same task, data, starting policy, vanilla reward model and evaluation. What runs
of two setups measure is not the same thing. On the embedded task, how the reward model is trained on its data may be
what an arm is about.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from r2m.config import Algorithm, ForumTask, Policy, Reward, Rollout, Run, TextTask
from r2m.results.numbers import setting_text
from r2m.results.table import Arm, Result, arm_name
from r2m.runs.journal import JournalView

Settings = dict[str, Any]  # dotted key -> value

TASKS: dict[str, type[BaseModel]] = {"forum": ForumTask, "text": TextTask}
SECTIONS: dict[str, type[BaseModel]] = dict(
    policy=Policy, reward=Reward, algorithm=Algorithm, rollout=Rollout, run=Run
)  # fmt: skip
OF_SETUP = ("policy.model", "reward.model", "reward.dtype", "run.eval_queries", "run.eval_seed", "run.judge")
OF_ARM = ("task.rrm", "task.odin")  # of `task`: how the reward model is trained on the same pairs
OF_KIND = (
    "reward.feedback",
    "reward.shaping",
    "reward.ensemble",
    "reward.uncertainty_form",
    "algorithm.advantage",
)  # an arm's kind says these
WITHOUT_HEAD = (
    "model", "dtype", "feedback", "no_eos", "no_eos_value", "shaping", "par_references", "length_penalty",
    "length_free", "ensemble", "members", "members_differ", "uwo_lambda",
    "uncertainty", "uncertainty_form",
)  # of `reward`: matters to RLOO too  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """`label`: what sets it apart from the other setups, or the task and the policy where there is one only."""

    label: str
    arms: tuple[Arm, ...]


def setups(results: Sequence[Result]) -> tuple[list[Setup], list[str]]:
    """The setups and their arms, in the order of their first runs; and the names of runs left out, since another run
    of the same arm and seed is here and has come at least as far."""
    found, repeated = [], []
    by_setup = _grouped(results, _setup)
    for label, group in zip(_labels([_setup(group[0]) for group in by_setup]), by_setup, strict=True):
        arms, again = _arms(group)
        start = group[0].view.start
        found.append(Setup(label or f"{start['task']}, policy {start['policy']}", tuple(arms)))
        repeated += again
    return found, repeated


def _arms(results: Sequence[Result]) -> tuple[list[Arm], list[str]]:
    groups = _grouped(results, _arm)
    settings = [_arm(group[0]) for group in groups]
    keys = sorted({key for own in settings for key in own if key not in OF_KIND})
    differing = [key for key in keys if len({json.dumps(own[key]) for own in settings if key in own}) > 1]
    arms, repeated = [], []
    for label, group, own in zip(_called(groups, settings), groups, settings, strict=True):
        by_seed: dict[int, Result] = {}
        group.sort(key=lambda r: (r.view.status == "finished", len(r.view.rounds)), reverse=True)
        for result in group:
            if by_seed.setdefault(result.view.seed, result) is not result:
                repeated.append(result.view.run_id)
        own = {key: own[key] for key in differing if key in own}
        arms.append(Arm(label, group[0].view.arm, dict(sorted(by_seed.items())), own))
    return arms, repeated


def _called(groups: Sequence[Sequence[Result]], settings: Sequence[Settings]) -> list[str]:
    """An arm of a sweep as the sweep calls it, with the sweep's name where it is of one of several; another one by
    its kind and what differs within that."""
    kinds = [group[0].view.arm for group in groups]
    of_kind = {kind: [own for own, k in zip(settings, kinds, strict=True) if k == kind] for kind in kinds}
    apart = {kind: iter(_labels(of)) for kind, of in of_kind.items()}
    by_settings = [" · ".join(filter(None, (kind, next(apart[kind])))) for kind in kinds]
    tags = [[r.view.tags for r in group if {"r2m.sweep", "r2m.trial"} <= r.view.tags.keys()] for group in groups]
    sweeps = [" = ".join(dict.fromkeys(of["r2m.sweep"] for of in own)) for own in tags]
    names = [" = ".join(dict.fromkeys(arm_name(of["r2m.trial"]) for of in own)) for own in tags]
    many = len({of["r2m.sweep"] for own in tags for of in own}) > 1
    short = [name or other for name, other in zip(names, by_settings, strict=True)]
    return [
        f"{sweep} {name}" if name and ((many and "=" not in sweep) or short.count(name) > 1) else label
        for sweep, name, label in zip(sweeps, names, short, strict=True)
    ]


def _grouped(results: Iterable[Result], by: Callable[[Result], Settings]) -> list[list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(json.dumps(by(result), sort_keys=True), []).append(result)
    return list(groups.values())


def _settings(view: JournalView) -> Settings:
    """Of a journal of an older version too: what it lacks has its default."""
    tree = view.start["config"]
    models = SECTIONS | {"task": TASKS[tree["task"]["kind"]]}
    flat: Settings = {}
    for section, model in models.items():
        defaults = {k: f.get_default() for k, f in model.model_fields.items() if not f.is_required()}
        flat |= {f"{section}.{key}": value for key, value in (defaults | tree.get(section, {})).items()}
    return flat


def _setup(result: Result) -> Settings:
    settings = _settings(result.view)
    kept = {key for key in settings if key.startswith("task.") or key in OF_SETUP} - {*OF_ARM}
    own = {key: value for key, value in settings.items() if key in kept}
    return own | {"data": result.view.start["data_hash"]}


def _arm(result: Result) -> Settings:
    """What can change the result, beside the setup and the seed."""
    settings = _settings(result.view)
    unused = set(OF_SETUP)
    if not settings["reward.feedback"]:
        unused |= {f"reward.{key}" for key in Reward.model_fields if key not in WITHOUT_HEAD}
    return {
        key: value for key, value in settings.items()
        if key in OF_ARM or (not key.startswith(("task.", "run.")) and key not in unused)
    }  # fmt: skip


def _labels(of: Sequence[Settings]) -> list[str]:
    """What each has that not all of them have; "" where there is one only."""
    keys = sorted({key for settings in of for key in settings})
    differing = [key for key in keys if len({json.dumps(settings.get(key)) for settings in of}) > 1]
    short = [", ".join(f"{key}={setting_text(settings.get(key))}" for key in differing) for settings in of]
    if len(set(short)) == len(of):
        return short
    return [", ".join(f"{key}={settings.get(key)}" for key in differing) for settings in of]
