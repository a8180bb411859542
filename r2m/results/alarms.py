"""What the alarm said in an arm's runs, and what it was worth: gold when it was raised, and gold at the end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from r2m.metrics import metric
from r2m.results.numbers import decimals, named, number
from r2m.results.readings import last, mean, up_to
from r2m.runs.journal import JournalView

JUDGEMENTS = ("eval/gold", "eval/win_rate")  # what the alarm is held against: the first that there is


@dataclass(frozen=True)
class Alarms:
    """`rounds`: at which each run raised it that did, of `watched`: those that looked for it.

    `at`, `end`: the judgement at the last evaluation up to the alarm, and at the end of the same runs; means over the
    runs that raised it, NaN where there is none.
    """

    watched: int
    rounds: tuple[int, ...]
    judgement: str | None  # one of JUDGEMENTS
    at: float
    end: float

    @property
    def count(self) -> str:
        return f"{len(self.rounds)} of {self.watched}"

    @property
    def when(self) -> str:
        """ "" where none raised it."""
        if not self.rounds:
            return ""
        low, high = min(self.rounds), max(self.rounds)
        return f"round {low}" if low == high else f"rounds {low} to {high}"

    def fall(self, places: int = 3) -> str:
        """The judgement at the alarm and at the end."""
        if math.isnan(self.at):
            return "–"
        return f"{decimals(self.at, places)}→{decimals(self.end, places)}"


def alarms(views: Sequence[JournalView]) -> Alarms | None:
    """Of the runs of an arm; None where none of them looked for it."""
    watched = [view for view in views if view.alarm or view.series("alarm/on")[0]]
    if not watched:
        return None
    judgement = next((key for key in JUDGEMENTS if any(view.series(key)[0] for view in watched)), None)
    raised = [(view, view.alarm["step"]) for view in watched if view.alarm]
    there = [found[1] if judgement and (found := up_to(view, judgement, step)) else math.nan for view, step in raised]
    ends = [last(view, judgement) if judgement else math.nan for view, _ in raised]
    return Alarms(len(watched), tuple(step for _, step in raised), judgement, mean(there), mean(ends))


def judgement_label(found: Sequence[Alarms | None]) -> str:
    """What the judgements of these are called, in a heading."""
    keys = dict.fromkeys(of.judgement for of in found if of and of.judgement)
    return " or ".join(metric(key).label for key in keys) or "gold"


def raised(arms: Sequence[tuple[str, Alarms | None]], where: str = "") -> list[str]:
    """A sentence on arms by label, none where no run has looked for the alarm. `where`: of what kind the runs are."""
    watched = sum(of.watched for _, of in arms if of)
    rows = [(label, of) for label, of in arms if of and of.rounds]
    if not rows:
        return [f"None of {watched} runs{where} raised the alarm."] * bool(watched)
    n = sum(len(of.rounds) for _, of in rows)
    said = f"The alarm was raised in {n} of {watched} runs{where}, of {named([label for label, _ in rows])}"
    at, end = (sum(getattr(of, key) * len(of.rounds) for _, of in rows) / n for key in ("at", "end"))
    if math.isnan(at):
        return [f"{said}."]
    what = judgement_label([of for _, of in rows])
    return [f"{said}: their {what} was {number(at)} then, and {number(end)} at the end."]
