"""train: arms on seeds, as sweeps without a search. A run of an arm on a seed is paid for once: an arm or a seed more
is that arm or that seed, whatever pipeline or step ran the others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from r2m.config import Count, Section, Seed, digest
from r2m.files import write_whole
from r2m.paper.arms import objective
from r2m.pipelines.contents import Contents
from r2m.pipelines.memo import Memo, write_entry
from r2m.pipelines.steps.recipes import absolute_recipe, recipe_config
from r2m.pipelines.steps.sweeps import finish_sweep, fits
from r2m.pipelines.work import Kind, StepOutputs, Where, Work
from r2m.sweeps.ranking import run_name
from r2m.sweeps.schema import Sweep
from r2m.sweeps.settings import slug
from r2m.sweeps.spec import config_of
from r2m.sweeps.sweep import runs_of, sweep_folder

RUN_VERSION = 1  # of a run: raised when Algorithm 1 gives another result for the same settings
PLAN = "sweeps.json"


class TrainStep(Section):
    """`set`: settings of all arms. `arms`: settings by label."""

    recipe: Annotated[str, AfterValidator(absolute_recipe)]
    set: dict[str, Any] = Field({})
    arms: Annotated[dict[str, dict[str, Any]], Field(min_length=1)] = Field(
        {"RLOO": {"reward.feedback": False}, "R2M": {"reward.feedback": True}}
    )
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field([0, 1, 2, 3, 4])
    evaluations: Count = 10  # of a run, at least
    workers: Count | None = None

    _sweep: Sweep = PrivateAttr()

    @model_validator(mode="after")
    def _checked(self) -> TrainStep:
        self._sweep = Sweep.model_validate(self.tree(self.arms, self.seeds))
        return self

    @property
    def sweep(self) -> Sweep:
        """All of it."""
        return self._sweep

    def tree(self, arms: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
        """Of a sweep file of these arms and seeds."""
        settings = self.set | ({} if self.workers is None else {"run.workers": self.workers})
        return {
            "recipe": self.recipe, "set": settings, "baselines": dict(arms), "seeds": list(seeds), "confirm": [],
            "objectives": [objective(recipe_config(self.recipe, settings))],
            "budget": {"trials": 0, "evaluations": self.evaluations},
        }  # fmt: skip


RunCell = tuple[str, int]  # an arm's label and a seed


def _keys(step: TrainStep, contents: Contents) -> dict[RunCell, str]:
    """What determines each run."""
    sweep = step.sweep
    return {
        (arm, seed): digest(
            [RUN_VERSION, contents.config(config_of(sweep, sweep.baselines[arm], seed))]
        )
        for arm in sweep.baselines
        for seed in sweep.seeds
    }  # fmt: skip


def _train(step: TrainStep, work: Work) -> StepOutputs:
    memo = Memo(work.storage)
    contents = Contents(work.storage, memo.folder)
    keys = _keys(step, contents)
    plan = work.kept / PLAN  # what a killed attempt set out to do
    if not plan.is_file():
        there = {} if work.again else {cell: e for cell, key in keys.items() if (e := memo.take("run", key))}
        write_whole(plan, json.dumps(_planned(step, work, [cell for cell in keys if cell not in there])))
    sweeps = json.loads(plan.read_text(encoding="utf-8"))
    for sweep in sweeps:
        file = work.kept / "sweep.yaml"
        write_whole(file, yaml.safe_dump(step.tree(sweep["arms"], sweep["seeds"]), sort_keys=False))
        opened = finish_sweep(sweep["name"], file, work)
        views = runs_of(opened)
        names = {
            (arm, seed): run_name(opened.name, slug(arm), seed) for arm in sweep["arms"] for seed in sweep["seeds"]
        }
        failed = {name: views[name] for name in names.values() if views[name].status != "finished"}
        for cell, name in names.items():
            if name not in failed:
                _remember(memo, keys[cell], name, opened.name, work)
        if failed:
            plan.unlink()  # the next attempt runs those that are missing then, as another sweep
            name, view = next(iter(failed.items()))
            raise RuntimeError(f"{name}: {view.status}: {view.events[-1].get('reason', 'no reason is known')}")
    contents.keep()
    outputs = [entry.outputs for key in keys.values() if (entry := memo.take("run", key))]
    if len(outputs) < len(keys):  # removed since this was planned
        plan.unlink()
        raise RuntimeError(f"{len(keys) - len(outputs)} runs that were there have been removed meanwhile")
    return {key: list(dict.fromkeys(name for each in outputs for name in each[key])) for key in TRAIN.outputs}


def _planned(step: TrainStep, work: Work, missing: Sequence[RunCell]) -> list[dict[str, Any]]:
    """The sweeps of what is missing: arms that miss the same seeds together, each under a name that is free."""
    seeds: dict[str, list[int]] = {}
    for arm, seed in missing:
        seeds.setdefault(arm, []).append(seed)
    together: dict[tuple[int, ...], dict[str, Any]] = {}
    for arm, of in seeds.items():
        together.setdefault(tuple(of), {})[arm] = step.arms[arm]
    sweeps, number = [], 0
    for group, arms in together.items():
        while sweep_folder(work.storage, name := f"{work.name}-{number}" if number else work.name).exists():
            number += 1
        sweeps.append({"name": name, "arms": arms, "seeds": list(group)})
        number += 1
    return sweeps


def _remember(memo: Memo, key: str, run: str, sweep: str, work: Work) -> None:
    there = memo.find("run", key)
    if there is not None and there.outputs["runs"] == [run]:  # by an attempt that was killed after that
        return
    with memo.making(memo.new_name("run", key)) as made:
        if made is not None:
            write_entry(made[0], {"runs": [run], "sweeps": [sweep]}, TRAIN.outputs, work.made_by, 0.0)


def missing_runs(step: TrainStep, storage: str) -> list[RunCell]:
    """Those that no step has run, as far as its models are there."""
    memo = Memo(storage)
    return [cell for cell, key in _keys(step, Contents(storage, memo.folder)).items() if not memo.find("run", key)]


def _takes(step: TrainStep, where: Where) -> str:
    missing = len(missing_runs(step, where.storage))
    there = len(step.arms) * len(step.seeds) - missing
    return f"{missing} run{'s' * (missing != 1)}" + (f", {there} more are there" if there else "")


TRAIN = Kind(
    TrainStep, {"runs": "runs", "sweeps": "runs"}, 1,
    lambda step, contents: [[*cell, key] for cell, key in _keys(step, contents).items()],
    lambda step, where: fits(step.sweep, where), _train, _takes, whole=True,
)  # fmt: skip
