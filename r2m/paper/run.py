"""The paper from a recipe: runs what is missing, assesses it, measures the cost, and writes `<storage>/paper/<name>`.

Runs are those of sweeps without a search, so they can be stopped and gone on with; more seeds than there are make a
sweep of the missing ones. Nothing that is there is done again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from r2m.config import digest, load
from r2m.config.load import recipe_path
from r2m.config.strict_yaml import parse
from r2m.errors import UserError
from r2m.files import write_whole
from r2m.paper import cost
from r2m.paper.arms import ARMS, sweep_tree
from r2m.paper.results import Results, Tree
from r2m.runs.folder import CHECKPOINTS, check_name, run_folder
from r2m.runs.journal import JournalView
from r2m.stages.common import Progress, silent
from r2m.stages.prepare import prepare
from r2m.sweeps.driver import run_sweep
from r2m.sweeps.ranking import run_name
from r2m.sweeps.room import plan_of
from r2m.sweeps.settings import slug
from r2m.sweeps.spec import config_of, load_sweep
from r2m.sweeps.sweep import Draw, Opened, extra_settings, new_sweep, open_sweep, runs_of, status_of

KEPT = ("RLOO", "R2M")  # whose checkpoints stay: Fig. 1b's
PROCESSES = 2  # that assess side by side


@dataclass(frozen=True)
class Asked:
    """What `r2m paper` was given. `settings`: key=value of all arms."""

    recipe: str
    seeds: int
    storage: str
    name: str
    settings: tuple[str, ...] = ()
    workers: int | None = None
    address: str | None = None  # of a Ray cluster; None: this machine

    @property
    def folder(self) -> Path:
        return Path(self.storage).absolute() / "paper" / self.name


def open_sweeps(asked: Asked, progress: Progress = silent) -> list[Opened]:
    """The sweeps that together have the seeds; one of the missing seeds is made.

    Raises UserError for a mistake in recipe, settings or name, for runs that cannot fit, or where the name's runs
    have other settings.
    """
    check_name("--name", asked.name)
    opened = [open_sweep(asked.storage, name) for name in _sweep_names(asked)]
    for there in opened:
        wanted = _sweep(asked, there.sweep.seeds)
        if there.sweep.model_dump() != wanted:
            raise UserError(
                f"--name {asked.name!r}: its runs have other settings than these ({_differing(there, wanted)}); "
                "take another name"
            )
    have = {seed for there in opened for seed in there.sweep.seeds}
    missing = [seed for seed in range(asked.seeds) if seed not in have]
    if missing:
        name = f"{asked.name}-from{missing[0]}" if opened else asked.name
        with tempfile.TemporaryDirectory() as folder:
            file = _write_sweep(asked, missing, Path(folder))
            plan = plan_of(
                load_sweep(file, asked.workers), extra_settings(asked.storage, None), asked.address
            )
            plan.check_disk(asked.storage)  # refused before anything is prepared
            opened.append(new_sweep(file, name, asked.storage, asked.workers, None, progress))
    return opened


def run_sweeps(opened: Sequence[Opened], address: str | None, console: Console, draw: Draw) -> bool:
    """Run those that have not finished; whether all have then (no Ctrl-C came). `draw`: shows a sweep's answer."""
    import ray

    joined = ray.is_initialized()
    try:
        return all(run_sweep(o, address, console, draw)[1] for o in opened if status_of(o) != "finished")
    finally:
        if not joined and ray.is_initialized():  # its processes are in the way of what is measured next
            ray.shutdown()


def collect(asked: Asked, opened: Sequence[Opened], progress: Progress = silent) -> Results:
    """The finished runs of the seeds asked for, assessed, and the cost, which is measured once."""
    views: dict[str, JournalView] = {}
    names: dict[str, tuple[str, int]] = {}  # a run's name -> arm, seed
    for there in opened:
        views |= runs_of(there)
        names |= {
            run_name(there.name, slug(arm), seed): (arm, seed)
            for arm in ARMS for seed in there.sweep.seeds if seed < asked.seeds
        }  # fmt: skip
    missing = {name: views[name].status if name in views else "not run" for name in names
               if name not in views or views[name].status != "finished"}  # fmt: skip
    runs: dict[str, dict[int, JournalView]] = {arm: {} for arm in ARMS}
    for name, (arm, seed) in names.items():
        if name not in missing:
            runs[arm][seed] = views[name]
    trees = _assess_all(asked.storage, [name for name in names if name not in missing], progress)
    assessments: dict[str, dict[int, Tree]] = {arm: {} for arm in ARMS}
    for name, tree in trees.items():
        arm, seed = names[name]
        if isinstance(tree, str):
            missing[name] = f"not assessed: {tree}"
            continue
        assessments[arm][seed] = tree
        if arm not in KEPT:  # assessed, a finished run has no use for them, and they are most of its room
            shutil.rmtree(run_folder(asked.storage, name) / CHECKPOINTS, ignore_errors=True)
    measured = _cost(asked, opened[0], progress)
    recipe = opened[0].base.recipe
    return Results(asked.name, recipe, tuple(range(asked.seeds)), runs, assessments, missing, measured)


def _sweep_names(asked: Asked) -> list[str]:
    """Of the sweeps that there are, the first one first."""
    folders = (Path(asked.storage).absolute() / "sweeps").glob(f"{asked.name}*")
    mine = re.compile(rf"{re.escape(asked.name)}(-from(\d+))?")
    found = {f.name: int(m[2] or -1) for f in folders if (m := mine.fullmatch(f.name))}
    return sorted(found, key=lambda name: found[name])


def _write_sweep(asked: Asked, seeds: Sequence[int], folder: Path) -> str:
    settings = dict(map(_setting, asked.settings))
    recipe = asked.recipe
    if recipe.endswith((".yaml", ".yml")):
        recipe = str(recipe_path(recipe))
    tree = sweep_tree(recipe, load(recipe, asked.settings), settings, seeds)
    path = folder / "paper.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
    return str(path)


def _sweep(asked: Asked, seeds: Sequence[int]) -> dict[str, Any]:
    """The tree of a sweep as these settings would make it."""
    with tempfile.TemporaryDirectory() as folder:
        return load_sweep(_write_sweep(asked, seeds, Path(folder)), asked.workers).model_dump()


def _setting(override: str) -> tuple[str, Any]:
    """Of an override that `load` has taken."""
    key, _, value = override.partition("=")
    return key.strip(), parse(value)


def _differing(there: Opened, wanted: dict[str, Any]) -> str:
    had = there.sweep.model_dump()
    return ", ".join(key for key in had if had[key] != wanted[key])


def _assess_all(storage: str, names: Sequence[str], progress: Progress) -> dict[str, Tree | str]:
    """Name -> its assessment, or why there is none. An assessment that is there is read."""
    trees: dict[str, Tree | str] = {}
    if not names:
        return trees
    with ProcessPoolExecutor(min(PROCESSES, os.cpu_count() or 1), get_context("spawn")) as pool:
        futures = {pool.submit(_assess, storage, name): name for name in names}
        for done, future in enumerate(as_completed(futures), 1):
            trees[futures[future]] = future.result()
            progress("assessing", done, len(names))
    return {name: trees[name] for name in names}


def _assess(storage: str, name: str) -> Tree | str:
    """In a process of its own; without the rows, of which no table has a use."""
    import torch

    from r2m.evaluation.assess import assess

    torch.set_num_threads(1)
    try:
        tree = assess(storage, name)
    except UserError as error:
        return str(error)
    return {key: value for key, value in tree.items() if key != "rows"}


def _cost(asked: Asked, opened: Opened, progress: Progress) -> Tree:
    configs = {arm: config_of(opened.sweep, ARMS[arm], 0, *opened.extra) for arm in cost.ORDER}
    key = digest([configs[arm].digest() for arm in sorted(configs)])
    path = asked.folder / "cost.json"
    if path.is_file():
        kept = json.loads(path.read_text())
        if kept["configs"] == key:
            return kept
    prepared = prepare(opened.base, progress)
    measured = cost.measure(configs, (prepared.policy, prepared.reward), progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(measured | {"configs": key}, indent=1, allow_nan=False))
    return measured
