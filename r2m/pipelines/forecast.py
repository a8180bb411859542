"""What a run of a pipeline would do, before anything is written: what is there, what would be made, what it takes.

What comes after a step that has yet to run cannot be known for certain: if that step's result comes out as one that
there was, what was made of it then is found. So it may run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil
from typing import Any

from rich.table import Table

from r2m.errors import UserError
from r2m.files import human
from r2m.paper.arms import ARMS
from r2m.pipelines.contents import Contents
from r2m.pipelines.execution import maker
from r2m.pipelines.memo import Entry, Memo
from r2m.pipelines.schema import Pipeline
from r2m.pipelines.spec import check_forced, graph, key_of, kind_of, pending, step_settings
from r2m.pipelines.steps.papers import PaperStep
from r2m.pipelines.steps.sweeps import SweepStep
from r2m.pipelines.steps.train import TrainStep, missing_runs
from r2m.pipelines.work import StepOutputs, Where
from r2m.sweeps.plan import SweepPlan, sweep_plan_table
from r2m.sweeps.room import plan_of
from r2m.sweeps.schema import Sweep
from r2m.sweeps.spec import config_of
from r2m.sweeps.sweep import extra_settings
from r2m.training.duration import time_text
from r2m.training.preflight import plan_for

_CACHED, _WILL, _MAY = "cached", "will run", "may run"


@dataclass
class _Ahead:
    """A step. `last`: what it made last, of whatever settings. `trouble`: why it could not run here."""

    state: str
    about: str = ""
    takes: str = ""
    last: Entry | None = None
    plan: SweepPlan | None = None
    guess_s: float | None = None
    trouble: str = ""
    outputs: StepOutputs = field(default_factory=dict)
    shapes: StepOutputs = field(default_factory=dict)  # outputs, with models of the shape that its own will have


def forecast(pipeline: Pipeline, where: Where, force: Collection[str] = ()) -> Iterator[str | Table]:
    """What to print. Raises UserError, after it, where a step could not run here."""
    needs = graph(pipeline)
    check_forced(force, needs)
    ahead = _Forecast(pipeline, where, force).steps(needs)
    yield _table(pipeline, needs, ahead)
    for name, step in ahead.items():
        if step.plan is not None:
            yield _plan_table(name, step.plan, step.guess_s)
    yield from _total(ahead)
    for name, step in ahead.items():
        if step.trouble:
            raise UserError(f"steps.{name}: {step.trouble}")


class _Forecast:
    def __init__(self, pipeline: Pipeline, where: Where, force: Collection[str]) -> None:
        self.pipeline, self.where, self.force = pipeline, where, force
        self.memo = Memo(where.storage)
        self.contents, self.entries = Contents(where.storage, self.memo.folder), self.memo.entries()

    def steps(self, needs: Mapping[str, Collection[str]]) -> dict[str, _Ahead]:
        ahead: dict[str, _Ahead] = {}
        for name, of in needs.items():
            ahead[name] = self._step(name, {other: ahead[other] for other in of})
        return ahead

    def _step(self, name: str, before: Mapping[str, _Ahead]) -> _Ahead:
        use, kind = self.pipeline.steps[name].use, kind_of(self.pipeline, name)
        settings = step_settings(self.pipeline, name, {other: step.outputs for other, step in before.items()})
        new = [other for other, step in before.items() if step.state != _CACHED]
        if not new and name not in self.force:
            entry = self.memo.find(use, key_of(use, settings, self.contents, self.pipeline.name))
            if entry is not None:
                return _Ahead(_CACHED, _made(entry, name), outputs=entry.outputs, shapes=entry.outputs)
        of_use = [entry for entry in self.entries if entry.use == use]
        sure = name in self.force or not new or not of_use
        ahead = _Ahead(_WILL if sure else _MAY, "" if sure else f"if {' or '.join(new)} comes out new")
        mine = [entry for entry in of_use if maker(entry.made_by) == (self.pipeline.name, name)]
        ahead.last = max(mine, key=lambda entry: entry.made, default=None)
        ahead.outputs = pending(kind) | _runs(name, settings)
        ahead.shapes = ahead.outputs | (
            {"model": getattr(settings, "model", None)} if "model" in kind.outputs else {}
        )
        ahead.takes = kind.takes(settings, self.where)
        if isinstance(settings, TrainStep) and name in self.force:
            ahead.takes = f"{len(ahead.outputs['runs'])} runs"
        try:
            kind.check(settings, self.where)
            if isinstance(settings, SweepStep | TrainStep):
                self._plan(ahead, name, settings, before)
        except UserError as error:
            ahead.trouble = str(error)
        return ahead

    def _plan(self, ahead: _Ahead, name: str, settings: SweepStep | TrainStep, before: Mapping[str, _Ahead]) -> None:
        """Of the runs that are missing. Raises UserError where they have no room."""
        shaped = step_settings(self.pipeline, name, {other: step.shapes for other, step in before.items()})
        sweep: Sweep | None = shaped.sweep
        if isinstance(settings, TrainStep) and name not in self.force:
            cells = missing_runs(settings, self.where.storage)
            arms = {arm: own for arm, own in shaped.arms.items() if any(arm == of for of, _ in cells)}
            seeds = [seed for seed in shaped.seeds if any(seed == of for _, of in cells)]
            sweep = Sweep.model_validate(shaped.tree(arms, seeds)) if cells else None
        if sweep is None:
            return
        extra = extra_settings(self.where.storage, self.where.tracking_uri)
        ahead.plan = plan_of(sweep, extra, self.where.address)
        configs = [config_of(sweep, params, sweep.seeds[0], *extra) for params in sweep.baselines.values()]
        plans = [plan_for(config, self.where.address) for config in configs]
        if times := [p.time.round * p.rounds for p in plans if p.time is not None]:
            ahead.guess_s = max(times) * ceil(ahead.plan.runs / ahead.plan.concurrent)


def _runs(name: str, settings: Any) -> dict[str, list[str]]:
    """As many as there will be, where that can be said."""
    match settings:
        case TrainStep():
            count = len(settings.arms) * len(settings.seeds)
        case SweepStep():
            count = (1 + len(settings.sweep.baselines)) * len(settings.sweep.confirm)
        case PaperStep():
            count = len(ARMS) * settings.seeds
        case _:
            return {"runs": settings.runs} if hasattr(settings, "runs") else {}
    return {"runs": [f"{name}-{number}" for number in range(count)]}


def _made(entry: Entry, name: str) -> str:
    when = datetime.fromtimestamp(entry.made, UTC).strftime("%Y-%m-%d %H:%M UTC")
    execution, _, step = entry.made_by.rpartition(".")
    by = execution if step == name else entry.made_by
    return f"made {when}, {time_text(entry.seconds)}, by {by}"


def _table(pipeline: Pipeline, needs: Mapping[str, Collection[str]], ahead: Mapping[str, _Ahead]) -> Table:
    table = Table(title=f"{pipeline.name}: what a run would do", title_justify="left")
    for column in ("step", "needs", ""):
        table.add_column(column, overflow="fold")
    table.add_column("", overflow="fold", ratio=1)
    for name, step in ahead.items():
        last = f"last time {time_text(step.last.seconds)}" if step.last is not None else ""
        said = [step.about, step.takes, last, f"cannot run here: {step.trouble}" if step.trouble else ""]
        use = pipeline.steps[name].use
        shown = name if name == use else f"{name} ({use})"
        table.add_row(shown, "\n".join(needs[name]), step.state, "; ".join(part for part in said if part))
    return table


def _plan_table(name: str, plan: SweepPlan, guess_s: float | None) -> Table:
    table = sweep_plan_table(plan)
    table.title = f"Plan of {name}"
    if guess_s is not None:
        table.add_row("time, a guess", f"{time_text(guess_s)}, all runs")
    return table


def _total(ahead: Mapping[str, _Ahead]) -> Iterator[str]:
    states = [step.state for step in ahead.values()]
    counts = [f"{states.count(state)} {state}" for state in (_CACHED, _WILL, _MAY) if state in states]
    yield f"{len(ahead)} steps: {', '.join(counts)}"
    steps = [step for step in ahead.values() if step.state != _CACHED]
    if known := [step.last.seconds for step in steps if step.last is not None]:
        yield f"last time {time_text(sum(known))} for {len(known)} of these {len(steps)}, one after another"
    if guesses := [step.guess_s for step in steps if step.guess_s is not None]:
        yield f"runs, by a guess at their operations: at most {time_text(sum(guesses))}"
    if disk := sum(step.plan.disk for step in steps if step.plan is not None):
        yield f"disk: at most {human(disk)} for runs"
