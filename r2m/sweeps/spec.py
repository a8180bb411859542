"""The sweep file: what varies, what is judged best, what it may cost. Read once, checked before anything runs.

A YAML file has the keys of `Sweep`. A Python file is for spaces that YAML cannot say: it defines SWEEP, a mapping
of the same keys without parameters and conditional, and suggest(trial), which returns the parameters of a trial
by dotted key. It is the user's own code, and it is run.
"""

import json
import os
from collections.abc import Callable, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import BaseTrial
from pydantic import ValidationError

from r2m.config import Config, explain, load, override
from r2m.config.load import read_mapping
from r2m.config.paths import LOCAL_OR_HUB, absolute, setting
from r2m.errors import UserError, said, shown
from r2m.sweeps.schema import Sweep
from r2m.sweeps.space import Params

PROBES = 10  # a few may well be combinations that no run can have


def overrides_of(sweep: Sweep, params: Mapping[str, Any], seed: int) -> list[str]:
    """What follows --set in the `r2m train` that repeats a run: key=value, what costs the same included."""
    settings = {**sweep.set, **params, **sweep.equal_cost(params), "run.seed": seed}
    return [override(key, value) for key, value in settings.items()]


def config_of(sweep: Sweep, params: Mapping[str, Any], seed: int, *extra: str) -> Config:
    """A run's settings. `extra`: further key=value, such as run.storage=DIR. Raises UserError."""
    return load(sweep.source, [*overrides_of(sweep, params, seed), *extra])


def baseline_point(sweep: Sweep, name: str) -> Params | None:
    """The parameters that make a trial of this baseline; None where the space has none that do."""
    if not sweep.parameters:
        return None
    seed = sweep.seeds[0]
    config = config_of(sweep, sweep.baselines[name], seed)
    params: Params = {}
    blocks = [sweep.parameters, *(block.parameters for block in sweep.conditional)]
    for block, condition in zip(blocks, [None, *sweep.conditional], strict=True):
        if condition is None or condition.applies(params):
            params |= {key: setting(config, key) for key in block}
            if not all(parameter.contains(params[key]) for key, parameter in block.items()):
                return None
    return params if config_of(sweep, params, seed).digest() == config.digest() else None


def load_sweep(
    path: str | Path, workers: int | None = None, kept: Mapping[str, Any] | None = None, recipe: Path | None = None
) -> Sweep:
    """A sweep from a .yaml or .py file; `workers` takes the place of its set.run.workers.

    `kept`: the tree that this file made where it was first read, whose paths stand: the sweep is taken up in a folder
    to which the file's own are not relative. `recipe`: the copy of its recipe that was kept then.

    Raises UserError, one line, for any mistake in it.
    """
    path = Path(absolute(str(path)))
    what = f"sweep = {shown(str(path))}"
    if path.suffix not in (".yaml", ".yml", ".py"):
        raise UserError(f"{what}: expected a .yaml or a .py file")
    if not os.path.isfile(path):
        raise UserError(f"{what}: no such file")
    suggest = None
    if path.suffix == ".py":
        tree, suggest = _python(path, what)
    else:
        tree = read_mapping(path, what, "with recipe, parameters and objectives")
    if kept is not None:
        paths = {key: value for key, value in kept["set"].items() if key in LOCAL_OR_HUB}
        tree = tree | {"recipe": kept["recipe"], "set": tree.get("set", {}) | paths}
    if workers is not None and isinstance(tree.get("set", {}), dict):
        tree = tree | {"set": tree.get("set", {}) | {"run.workers": workers}}
    try:
        return Sweep.model_validate(tree, context={"suggest": suggest, "recipe": recipe and str(recipe)})
    except ValidationError as error:
        raise UserError(explain(error, Sweep)) from None


def check_suggest(sweep: Sweep) -> None:
    """Raises UserError where the suggest of a Python file gives settings at none of PROBES random points."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(sweep.sampler.seed))
    first: UserError | None = None
    for _ in range(PROBES if sweep.budget.trials else 0):
        try:
            sweep.suggest(study.ask())
            return
        except UserError as error:
            first = first or error
    if first is not None:
        raise first


def _python(path: Path, what: str) -> tuple[dict[str, Any], Callable[[BaseTrial], Params]]:
    spec = spec_from_file_location(f"sweep_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # whatever it is, it is the file's
        raise UserError(f"{what}: {said(error)}") from error
    if not callable(vars(module).get("suggest")) or "SWEEP" not in vars(module):
        raise UserError(f"{what}: expected SWEEP, a mapping, and suggest(trial), a function")
    try:  # a copy of plain values, as YAML would have them
        tree = json.loads(json.dumps(module.SWEEP))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{what}: SWEEP: text, numbers, truths, lists and mappings are allowed ({error})") from None
    if not isinstance(tree, dict):
        raise UserError(f"{what}: expected SWEEP, a mapping, and suggest(trial), a function")
    return tree, module.suggest
