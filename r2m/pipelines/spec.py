"""A pipeline from its file: read once, checked whole before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from r2m.config import Section, digest, explain
from r2m.config.load import read_mapping
from r2m.config.paths import absolute
from r2m.config.strict_yaml import parse
from r2m.errors import UserError, shown
from r2m.pipelines.contents import Contents
from r2m.pipelines.kinds import STEP_KINDS
from r2m.pipelines.references import references, resolved
from r2m.pipelines.schema import Pipeline, Schedule, Step
from r2m.pipelines.work import PENDING_PATH, Kind, Sort, StepOutputs, Where

PENDING: dict[Sort, Any] = {  # in the place of what a step has not made yet
    "folder": PENDING_PATH, "file": PENDING_PATH, "runs": ["pending"], "settings": {}, "text": "pending",
}  # fmt: skip


def load_pipeline(file: str | Path, settings: Sequence[str] = ()) -> Pipeline:
    """A pipeline from a .yaml file, with `settings`, NAME=VALUE, in the place of its own parameters.

    Raises UserError, one line, for any mistake in it: unknown keys, references to nothing, cycles, and settings that
    a step could not run with, as far as that can be seen before the steps have run that it needs.
    """
    path = Path(absolute(str(file)))
    what = f"pipeline = {shown(str(file))}"
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"{what}: expected a .yaml file")
    tree = read_mapping(path, what, "with steps")
    tree.setdefault("name", path.stem)
    parameters = tree.get("parameters")
    given = _given(settings, parameters if isinstance(parameters, dict) else {})
    if given:
        tree["parameters"] = tree["parameters"] | given
    try:
        pipeline = Pipeline.model_validate(tree)
    except ValidationError as error:
        raise UserError(explain(error, Pipeline)) from None
    return checked_pipeline(pipeline)


def on_clock(pipeline: Pipeline, cron: str | None, time_zone: str | None) -> Pipeline:
    """With these in the place of its schedule's own. Raises UserError."""
    given = {key: value for key, value in (("cron", cron), ("time_zone", time_zone)) if value is not None}
    if not given:
        return pipeline
    schedule = settings_of(Schedule, pipeline.schedule.model_dump() | given, "schedule")
    return pipeline.model_copy(update={"schedule": schedule})


def checked_pipeline(pipeline: Pipeline) -> Pipeline:
    """The same. Raises UserError as `load_pipeline`."""
    order = graph(pipeline)
    unused = pipeline.parameters.keys() - {name for step in pipeline.steps.values() for name in _named(step)}
    if unused:
        raise UserError(f"parameters.{min(unused)}: no step uses it")
    outputs = {name: pending(kind_of(pipeline, name)) for name in order}
    for name in order:
        step_settings(pipeline, name, outputs)
    return pipeline


def graph(pipeline: Pipeline) -> dict[str, tuple[str, ...]]:
    """Each step's needs, by `needs` and by reference; the steps in an order in which they can run.

    Raises UserError for an unknown kind, a reference to nothing, or a cycle.
    """
    needs: dict[str, tuple[str, ...]] = {}
    for name, step in pipeline.steps.items():
        kind_of(pipeline, name)
        for other in step.needs:
            if other not in pipeline.steps:
                raise UserError(f"steps.{name}.needs = {shown(other)}: {_steps(pipeline, but=name)} are allowed")
        found = dict.fromkeys(step.needs)
        for wanted, output, where in references(step.settings, f"steps.{name}"):
            _check_reference(pipeline, wanted, output, where)
            if output is not None:
                found[wanted] = None
        needs[name] = tuple(found)
    order: dict[str, tuple[str, ...]] = {}
    while len(order) < len(needs):
        ready = [name for name in needs if name not in order and all(other in order for other in needs[name])]
        if not ready:
            raise UserError(f"steps: {_cycle(needs, order)}: steps need each other in a circle")
        order |= {name: needs[name] for name in ready}
    return order


def check_forced(force: Collection[str], steps: Collection[str]) -> None:
    """Raises UserError where one is none of the steps."""
    for name in force:
        if name not in steps:
            raise UserError(f"--force {shown(name)}: {', '.join(steps)} are allowed")


def check_room_for(pipeline: Pipeline, where: Where) -> None:
    """Raises UserError for a step that could not run here, as far as that can be seen before anything has run."""
    outputs = {name: pending(kind_of(pipeline, name)) for name in pipeline.steps}
    for name in pipeline.steps:
        try:
            kind_of(pipeline, name).check(step_settings(pipeline, name, outputs), where)
        except UserError as error:
            raise UserError(f"steps.{name}: {error}") from None


def step_settings(pipeline: Pipeline, name: str, outputs: Mapping[str, StepOutputs]) -> Any:
    """A step's settings as its kind has them, `outputs` being those of the steps that it needs. Raises UserError."""
    kind = kind_of(pipeline, name)
    tree = resolved(pipeline.steps[name].settings, f"steps.{name}", _resolver(pipeline, outputs))
    return settings_of(kind.settings, tree, f"steps.{name}")


def settings_of(of: type[Section], tree: Any, at: str) -> Any:
    """Raises UserError that begins with `at`."""
    try:
        return of.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{at}: {explain(error, of)}") from None


def key_of(use: str, settings: Any, contents: Contents, pipeline: str) -> str:
    """The digest of all that determines a step's result."""
    kind = STEP_KINDS[use]
    return digest([use, kind.version, kind.determines(settings, contents), *[pipeline] * kind.own])


def kind_of(pipeline: Pipeline, name: str) -> Kind:
    use = pipeline.steps[name].use
    if use not in STEP_KINDS:
        raise UserError(f"steps.{name}.use = {shown(use)}: {', '.join(STEP_KINDS)} are allowed")
    return STEP_KINDS[use]


def pending(kind: Kind) -> StepOutputs:
    """StepOutputs of a kind's step that has not run."""
    return {output: PENDING[sort] for output, sort in kind.outputs.items()}


def _resolver(pipeline: Pipeline, outputs: Mapping[str, StepOutputs]) -> Callable[[str, str | None], Any]:
    return lambda name, output: pipeline.parameters[name] if output is None else outputs[name][output]


def _given(settings: Sequence[str], parameters: Mapping[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for setting in settings:
        name, sign, value = setting.partition("=")
        name = name.strip()
        if not sign or not value.strip():
            raise UserError(f"--set {shown(setting)}: expected NAME=VALUE, a parameter of the pipeline's")
        if name not in parameters:
            allowed = f"{', '.join(parameters)} are allowed" if parameters else "it has no parameters"
            raise UserError(f"--set {shown(setting)}: not a parameter of this pipeline; {allowed}")
        try:
            given[name] = parse(value)
        except ValueError as error:
            raise UserError(f"--set {name}: {shown(value)} is not a YAML value ({error})") from None
    return given


def _named(step: Step) -> set[str]:
    return {name for name, output, _ in references(step.settings, "") if output is None}


def _check_reference(pipeline: Pipeline, name: str, output: str | None, where: str) -> None:
    said = f"{where}: ${{{name}{'' if output is None else f'.{output}'}}}"
    if output is None:
        if name in pipeline.steps:
            there = ", ".join(f"{name}.{key}" for key in kind_of(pipeline, name).outputs)
            raise UserError(f"{said} is a step; of its outputs, {there or 'it has none'} are allowed")
        if name not in pipeline.parameters:
            raise UserError(f"{said}: no such parameter; there are: {', '.join(pipeline.parameters) or 'none'}")
        return
    if name not in pipeline.steps:
        raise UserError(f"{said}: no such step; there are: {', '.join(pipeline.steps)}")
    if output not in (outputs := kind_of(pipeline, name).outputs):
        raise UserError(f"{said}: {name} uses {pipeline.steps[name].use}, whose outputs are {', '.join(outputs)}")


def _steps(pipeline: Pipeline, but: str) -> str:
    return ", ".join(name for name in pipeline.steps if name != but) or "no others"


def _cycle(needs: Mapping[str, Sequence[str]], done: Mapping[str, Any]) -> str:
    """One, as a -> b -> a."""
    path = [next(name for name in needs if name not in done)]
    while True:
        after = next(other for other in needs[path[-1]] if other not in done)
        if after in path:
            return " -> ".join([*path[path.index(after) :], after])
        path.append(after)
