"""What the paper's page has beside figures: tables, whose cells know their interval, seeds and runs, and claims."""

from __future__ import annotations

from dataclasses import dataclass

from r2m.results.statistics import Estimate

MEASURED = "measured"
MISSING = "–"  # what a cell shows that should have a number
HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be judged"


@dataclass(frozen=True)
class PaperCell:
    """`text`: what is shown where there is no estimate: nothing where there is none to have. `why`: what a cell
    without an estimate has to say, MISSING ones above all."""

    text: str = ""
    estimate: Estimate | None = None
    places: int = 1
    runs: tuple[str, ...] = ()
    finding: str = ""  # of a difference: one of r2m.results.statistics.FINDINGS
    why: str = ""


@dataclass(frozen=True)
class Column:
    source: str  # MEASURED, or which of the paper's settings
    heading: str


@dataclass(frozen=True)
class PaperTable:
    """`label`: what the first column holds. `measured`: what the measured columns are, in words."""

    number: int
    title: str
    measured: str
    label: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[PaperCell, ...]], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged:
    """A claim of the paper's. `verdict`: HOLDS, FAILS or OPEN; `why`: the sentence that says so in numbers."""

    claim: str
    source: str
    verdict: str
    why: str
    headline: bool = False  # what most readers look for
