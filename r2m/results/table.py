"""One table of results: (arm, seed) -> what the run came to. A sweep's answer, `compare` and the paper are readings
of it.

A run's place in it is written when the run starts, as tags: r2m.arm (the kind of its settings), r2m.seed, and, of a
sweep's run, r2m.sweep, r2m.trial (what its arm is called there) and r2m.role. JournalView.tags has them of journals
of older versions too.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from r2m.results.assessment import Assessment
from r2m.results.statistics import Estimate, paired_difference
from r2m.runs.journal import JournalView

T = TypeVar("T")
Values = dict[int, float]  # seed -> a number of its run; a seed whose run has none is left out


@dataclass(frozen=True)
class Result:
    """A cell. `assessment`: None where the run has not been assessed."""

    view: JournalView
    assessment: Assessment | None = None


@dataclass(frozen=True)
class Arm:
    """A row. `kind`: of its settings, as JournalView.arm. `results`: by seed."""

    label: str
    kind: str
    results: dict[int, Result]
    settings: Mapping[str, Any] = field(default_factory=dict)  # what it has that other arms have otherwise

    @property
    def runs(self) -> tuple[JournalView, ...]:
        return tuple(result.view for result in self.results.values())

    @property
    def seeds(self) -> str:
        return ", ".join(map(str, self.results))

    @property
    def finished(self) -> dict[int, JournalView]:
        """By seed."""
        return {seed: r.view for seed, r in self.results.items() if r.view.status == "finished"}

    def on(self, seeds: Iterable[int]) -> dict[int, JournalView]:
        """Those of the seeds that it has, in their order."""
        return {seed: self.results[seed].view for seed in seeds if seed in self.results}


@dataclass(frozen=True)
class Paired:
    """The mean of a - b over the seeds that both have."""

    estimate: Estimate
    seeds: tuple[int, ...]


def trial_name(number: int) -> str:
    """Of the arm that a trial is."""
    return f"t{number:03d}"


def arm_name(trial: str) -> str:
    """What an arm of a sweep is called, given the r2m.trial of its runs: a baseline's name, else the trial's."""
    number = re.fullmatch(r"trial (\d+)", trial)
    return trial_name(int(number[1])) if number else trial


def trial_label(number: int | None, baseline: str | None = None) -> str:
    """The r2m.trial of a sweep's runs: a baseline's name, else the trial's."""
    return baseline or f"trial {number}"


def by_trial(results: Iterable[Result]) -> dict[str, Arm]:
    """A sweep's runs as its arms, by what they are called in it: their r2m.trial."""
    rows: dict[str, dict[int, Result]] = {}
    for result in results:
        rows.setdefault(result.view.tags["r2m.trial"], {})[result.view.seed] = result
    return {
        label: Arm(label, next(iter(row.values())).view.arm, dict(sorted(row.items()))) for label, row in rows.items()
    }


def values(of: Mapping[int, T], pick: Callable[[T], float | None]) -> Values:
    """A number of each run, by seed, where it has one and that is finite."""
    found = {seed: pick(each) for seed, each in of.items()}
    return {seed: value for seed, value in found.items() if value is not None and math.isfinite(value)}


def paired(a: Values, b: Values) -> Paired | None:
    """a - b on the seeds that both have, in a's order; None where they share none."""
    seeds = tuple(seed for seed in a if seed in b)
    if not seeds:
        return None
    return Paired(paired_difference([a[s] for s in seeds], [b[s] for s in seeds]), seeds)
