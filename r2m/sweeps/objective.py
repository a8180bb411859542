"""What a run is worth to a sweep, read from its journal: held-out metrics, never the reward that was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from r2m.config import Number, Positive, Section
from r2m.errors import shown
from r2m.metrics import METRICS
from r2m.results.readings import KL, at_kl, last, trajectory

if TYPE_CHECKING:
    from r2m.runs.journal import JournalView

HELD_OUT_METRICS = sorted(key for key in METRICS if key.startswith("eval/") and key != "eval/proxy")


class Objective(Section):
    """The metric's value at the run's end; with matched_kl, where the run's held-out KL reaches that many nats."""

    metric: str
    direction: Literal["maximize", "minimize"] = "maximize"
    matched_kl: Positive | None = None  # nats per sequence

    @model_validator(mode="after")
    def _sound(self) -> Objective:
        _check_metric(self.metric)
        if self.metric == "eval/vanilla" and self.matched_kl is None:
            raise ValueError(
                "metric = 'eval/vanilla': give matched_kl (nats): the vanilla reward's height says nothing without "
                "the KL that it was bought with"
            )
        if self.metric == KL and (self.direction == "maximize" or self.matched_kl is not None):
            raise ValueError(f"metric = {KL!r}: allowed with direction: minimize and without matched_kl")
        return self


class Constraint(Section):
    """Bounds on a metric at the run's end, both included."""

    metric: str
    max: Number | None = None
    min: Number | None = None

    @model_validator(mode="after")
    def _sound(self) -> Constraint:
        _check_metric(self.metric)
        if self.max is None and self.min is None:
            raise ValueError(f"metric = {self.metric!r}: give max, min or both")
        if self.max is not None and self.min is not None and self.min > self.max:
            raise ValueError(f"min = {self.min} is greater than max = {self.max}")
        return self

    def excess(self, value: float) -> float:
        above = [] if self.max is None else [value - self.max]
        below = [] if self.min is None else [self.min - value]
        return math.inf if math.isnan(value) else max(above + below)


def _check_metric(metric: str) -> None:
    if metric.endswith("/proxy"):
        why = "R2M trains this reward model, so it would select the model that flatters itself"
    elif metric in HELD_OUT_METRICS:
        return
    else:
        why = "measured while training, not on held-out prompts" if metric in METRICS else "no such metric"
    raise ValueError(f"metric = {shown(metric)}: {why}; allowed: {', '.join(HELD_OUT_METRICS)}")


def check_judged(objectives: Sequence[Objective], constraints: Sequence[Constraint], gold: bool, judge: bool) -> None:
    """Raises ValueError for what does not go together. `gold`, `judge`: whether the task has a gold reward, and
    the run a judge of its own."""
    if objectives[0].metric == KL:
        raise ValueError(f"objectives.0: metric = {KL!r}: allowed second; alone it asks for no training")
    asked = [(o.metric, o.matched_kl) for o in objectives]
    for i, pair in enumerate(asked):
        if pair in asked[:i]:
            raise ValueError(f"objectives.{i}: metric = {pair[0]!r}: given twice")
    bounded = [c.metric for c in constraints]
    for i, metric in enumerate(bounded):
        if metric in bounded[:i]:  # the study holds a constraint by its metric
            raise ValueError(f"constraints.{i}: metric = {shown(metric)}: given twice; give min and max together")
    places = [(f"objectives.{i}", o.metric) for i, o in enumerate(objectives)]
    places += [(f"constraints.{i}", c.metric) for i, c in enumerate(constraints)]
    for place, metric in places:
        if metric == "eval/gold" and not gold:
            raise ValueError(
                f"{place}: metric = 'eval/gold': the task has no gold reward; take eval/vanilla with matched_kl"
            )
        if metric == "eval/win_rate" and not (gold or judge):
            raise ValueError(f"{place}: metric = 'eval/win_rate': there is no judge; give set: {{run.judge: MODEL}}")


def value_of(view: JournalView, objective: Objective) -> float:
    """The objective's value in a run as far as it has come; NaN where it has not been measured."""
    points = list(trajectory(view, objective.metric).values())
    if objective.matched_kl is None or not points:
        return last(view, objective.metric)
    return at_kl(points, objective.matched_kl)


def violations(view: JournalView, constraints: Sequence[Constraint]) -> list[float]:
    """By how much each constraint is broken at the last evaluation, in the metric's unit: <= 0 where it is kept
    (Optuna's convention), infinite where the metric is missing or NaN."""
    return [constraint.excess(last(view, constraint.metric)) for constraint in constraints]
