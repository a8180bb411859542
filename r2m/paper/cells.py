"""What a table is made of: cells that know their interval, seeds and runs, beside the paper's own figures."""

from __future__ import annotations

from dataclasses import dataclass

from r2m.paper.results import Results, Values, difference
from r2m.results.findings import finding
from r2m.results.statistics import Estimate, mean_estimate

MEASURED = "measured"
MISSING = "–"  # what a cell shows that should have a number


@dataclass(frozen=True)
class Cell:
    """`text`: what is shown where there is no estimate: nothing where there is none to have. `why`: what a cell
    without an estimate has to say, MISSING ones above all."""

    text: str = ""
    estimate: Estimate | None = None
    places: int = 1
    runs: tuple[str, ...] = ()
    finding: str = ""  # of a difference: one of r2m.results.findings.FINDINGS
    why: str = ""


@dataclass(frozen=True)
class Column:
    source: str  # MEASURED, or which of the paper's settings
    heading: str


@dataclass(frozen=True)
class Table:
    """`label`: what the first column holds. `measured`: what the measured columns are, in words."""

    number: int
    title: str
    measured: str
    label: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    notes: tuple[str, ...] = ()


def measured(
    r: Results, arm: str, values: Values, places: int = 1, scale: float = 1.0, why: str = ""
) -> Cell:
    """The mean over an arm's runs; `why`: what to say where no run has a value."""
    if not values:
        return Cell(MISSING, why=why or absent(r, arm))
    estimate = mean_estimate([scale * value for value in values.values()])
    return Cell(estimate=estimate, places=places, runs=r.run_ids(arm, values))


def delta(r: Results, arm: str, values: Values, other: Values, places: int = 1, scale: float = 1.0) -> Cell:
    """The paired difference values - other over the seeds that both have, and what it shows."""
    d = difference({s: scale * v for s, v in values.items()}, {s: scale * v for s, v in other.items()})
    if d is None:
        return Cell(MISSING, why="no seed that both arms have")
    shared = {seed: value for seed, value in values.items() if seed in other}
    return Cell(estimate=d, places=places, runs=r.run_ids(arm, shared), finding=finding(d))


def published(value: float | None, places: int = 1) -> Cell:
    return Cell() if value is None else Cell(text=f"{value:.{places}f}".replace("-", "−"))


def absent(r: Results, arm: str) -> str:
    """Why an arm has no number at all, or not this one."""
    if not r.runs.get(arm):
        return f"no run of {arm} has finished"
    if not r.assessments.get(arm):
        return f"no run of {arm} is assessed"
    return "its assessments do not have it"
