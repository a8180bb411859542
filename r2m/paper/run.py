"""The paper from a recipe: runs what is missing, assesses it, measures the cost, and writes `<storage>/paper/<name>`.

Runs are those of sweeps without a search, so they can be stopped and gone on with; more seeds than there are make a
sweep of the missing ones. Nothing that is there is done again.
"""

import json
import re
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from r2m.config import digest, load
from r2m.config.load import recipe_path
from r2m.config.strict_yaml import parse
from r2m.errors import UserError
from r2m.evaluation.assess_all import assess_all
from r2m.files import write_whole
from r2m.paper import cost
from r2m.paper.arms import ARMS, sweep_tree
from r2m.results.experiment import Experiment
from r2m.results.table import Result, by_trial
from r2m.runs.folder import CHECKPOINTS, check_name, run_folder
from r2m.stages.prepare import prepare
from r2m.stages.progress import Progress, silent
from r2m.sweeps.driver import run_sweep
from r2m.sweeps.room import plan_of
from r2m.sweeps.spec import config_of, load_sweep
from r2m.sweeps.sweep import Opened, extra_settings, new_sweep, open_sweep, runs_of, status_of

KEPT = ("RLOO", "R2M")  # whose checkpoints stay: Fig. 1b's


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
    def words(self) -> str:
        """What follows `r2m paper` to go on, or to write it again."""
        options: dict[str, object] = {
            "--recipe": self.recipe, "--seeds": self.seeds, "--storage": self.storage, "--name": self.name,
            "--workers": self.workers, "--address": self.address,
        }  # fmt: skip
        words = [word for key, value in options.items() if value is not None for word in (key, str(value))]
        return shlex.join([*words, *(word for setting in self.settings for word in ("--set", setting))])

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
        had, wanted = there.sweep.model_dump(), _sweep(asked, there.sweep.seeds)
        if differing := [key for key in had if had[key] != wanted[key]]:
            raise UserError(
                f"--name {asked.name!r}: its runs have other settings than these ({', '.join(differing)}); "
                "take another name"
            )
    have = {seed for there in opened for seed in there.sweep.seeds}
    missing = [seed for seed in range(asked.seeds) if seed not in have]
    if missing:
        name = f"{asked.name}-from{missing[0]}" if opened else asked.name
        with tempfile.TemporaryDirectory() as folder:
            file = _write_sweep(asked, missing, Path(folder))
            plan = plan_of(load_sweep(file, asked.workers), extra_settings(asked.storage, None), asked.address)
            plan.check_disk(asked.storage)  # refused before anything is prepared
            opened.append(new_sweep(file, name, asked.storage, asked.workers, None, progress))
    return opened


def run_sweeps(opened: Sequence[Opened], address: str | None, console: Console, told: Progress = silent) -> bool:
    """Run those that have not finished; whether all have then (no Ctrl-C came). `told`: as of `run_sweep`."""
    import ray

    joined = ray.is_initialized()
    try:
        return all(run_sweep(o, address, console, told)[1] for o in opened if status_of(o) != "finished")
    finally:
        if not joined and ray.is_initialized():  # its processes are in the way of what is measured next
            ray.shutdown()


def collect(asked: Asked, opened: Sequence[Opened], progress: Progress = silent) -> Experiment:
    """The finished runs of the seeds asked for, assessed, and the cost, which is measured once."""
    seeds = tuple(range(asked.seeds))
    views = {name: view for there in opened for name, view in runs_of(there).items() if view.seed in seeds}
    begun = {(view.tags["r2m.trial"], view.seed) for view in views.values()}
    missing = {name: view.status for name, view in views.items() if view.status != "finished"}
    missing |= {f"{arm}, seed {seed}": "not run" for arm, seed in product(ARMS, seeds) if (arm, seed) not in begun}
    found = assess_all(asked.storage, [name for name in views if name not in missing], progress=progress)
    missing |= {name: f"not assessed: {why}" for name, why in found.items() if isinstance(why, str)}
    results = [Result(views[name], None if isinstance(a, str) else a) for name, a in found.items()]
    for result in results:
        if result.assessment and result.view.tags["r2m.trial"] not in KEPT:
            # Assessed, a finished run has no use for its checkpoints, and they are most of its room.
            folder = run_folder(asked.storage, result.view.run_id)
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    measured = _cost(asked, opened[0], progress)
    return Experiment(asked.name, opened[0].base.recipe, seeds, ARMS, by_trial(results), missing, measured)


def _sweep_names(asked: Asked) -> list[str]:
    """Of the sweeps that there are, the first one first."""
    folders = (Path(asked.storage).absolute() / "sweeps").glob(f"{asked.name}*")
    mine = re.compile(rf"{re.escape(asked.name)}(-from(\d+))?")
    found = {f.name: int(m[2] or -1) for f in folders if (m := mine.fullmatch(f.name))}
    return sorted(found, key=lambda name: found[name])


def _write_sweep(asked: Asked, seeds: Sequence[int], folder: Path) -> str:
    recipe = asked.recipe
    if recipe.endswith((".yaml", ".yml")):
        recipe = str(recipe_path(recipe))
    base = load(recipe, asked.settings)  # takes them, or refuses
    settings = {key.strip(): parse(value) for key, _, value in (s.partition("=") for s in asked.settings)}
    tree = sweep_tree(recipe, base, settings, seeds)
    path = folder / "paper.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
    return str(path)


def _sweep(asked: Asked, seeds: Sequence[int]) -> dict[str, Any]:
    """The tree of a sweep as these settings would make it."""
    with tempfile.TemporaryDirectory() as folder:
        return load_sweep(_write_sweep(asked, seeds, Path(folder)), asked.workers).model_dump()


def _cost(asked: Asked, opened: Opened, progress: Progress) -> dict[str, Any]:
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
