"""The sweep file: what varies, what is judged best, what it may cost. Read once, checked before anything runs.

A YAML file has the keys of `Sweep`. A Python file is for spaces that YAML cannot say: it defines SWEEP, a mapping
of the same keys without parameters and conditional, and suggest(trial), which returns the parameters of a trial
by dotted key. It is the user's own code, and it is run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import BaseTrial
from pydantic import ValidationError

from r2m.config import Config, explain, load, override
from r2m.errors import UserError
from r2m.sweeps.cost import setting
from r2m.sweeps.objective import Constraint as Constraint
from r2m.sweeps.objective import Objective as Objective
from r2m.sweeps.objective import value_of as value_of
from r2m.sweeps.objective import violations as violations
from r2m.sweeps.schema import Budget as Budget
from r2m.sweeps.schema import Sampler as Sampler
from r2m.sweeps.schema import Sweep as Sweep
from r2m.sweeps.schema import grace as grace
from r2m.sweeps.schema import slug as slug
from r2m.sweeps.space import Conditional as Conditional
from r2m.sweeps.space import Parameter as Parameter
from r2m.sweeps.space import Params
from r2m.sweeps.stopping import EarlyStopping as EarlyStopping


def overrides_of(sweep: Sweep, params: Mapping[str, Any], seed: int) -> list[str]:
    """What follows --set in the `r2m train` that repeats a run: key=value, what costs the same included."""
    settings = {**sweep.set, **params, **sweep.equal_cost(params), "run.seed": seed}
    return [override(key, value) for key, value in settings.items()]


def config_of(sweep: Sweep, params: Mapping[str, Any], seed: int, *extra: str) -> Config:
    """A run's settings. `extra`: further key=value, such as run.storage=DIR. Raises UserError."""
    return load(sweep.recipe, [*overrides_of(sweep, params, seed), *extra])


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


def load_sweep(path: str | Path, workers: int | None = None) -> Sweep:
    """A sweep from a .yaml or .py file; `workers` takes the place of its set.run.workers.

    Raises UserError, one line, for any mistake in it.
    """
    path = Path(path)
    if path.suffix not in (".yaml", ".yml", ".py"):
        raise UserError(f"sweep = {str(path)!r}: expected a .yaml or a .py file")
    if not path.is_file():
        raise UserError(f"sweep = {str(path)!r}: no such file")
    suggest = None
    if path.suffix == ".py":
        tree, suggest = _python(path)
    else:
        try:
            tree = yaml.load(path.read_text(), _Loader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(
                f"sweep = {str(path)!r}: not valid YAML ({' '.join(str(error).split())})"
            ) from None
    if not isinstance(tree, dict):
        raise UserError(f"sweep = {str(path)!r}: expected a mapping with recipe, parameters and objectives")
    if workers is not None and isinstance(tree.get("set", {}), dict):
        tree = tree | {"set": tree.get("set", {}) | {"run.workers": workers}}
    try:
        return Sweep.model_validate(tree, context={"suggest": suggest})
    except ValidationError as error:
        raise UserError(explain(error, Sweep)) from None


def _python(path: Path) -> tuple[Any, Callable[[BaseTrial], Params]]:
    spec = spec_from_file_location(f"sweep_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"sweep = {str(path)!r}: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, "suggest", None)) or not hasattr(module, "SWEEP"):
        raise UserError(f"sweep = {str(path)!r}: expected SWEEP, a mapping, and suggest(trial), a function")
    return module.SWEEP, module.suggest


class _Loader(yaml.SafeLoader):
    """Refuses a key that occurs twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise yaml.YAMLError(f"{key}: given twice, line {node.value[i][0].start_mark.line + 1}")
        return super().construct_mapping(node, deep)
