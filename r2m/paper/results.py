"""What the runs of the paper's arms came to: one number a run, by arm and seed.

Values: seed -> number. What a run does not have is left out, so that a mean says over how many seeds it is. An
assessment is one of r2m.results.assessment.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from r2m.results.assessment import Accuracy, Assessment
from r2m.results.statistics import Estimate, paired_difference
from r2m.runs.journal import JournalView

Values = dict[int, float]
Tree = dict[str, Any]
ITSELF = 0.5  # a win rate against itself, a tie counting half


@dataclass(frozen=True)
class Results:
    """`runs` and `assessments`: arm -> seed -> that of a finished run."""

    name: str
    recipe: str
    seeds: tuple[int, ...]
    runs: dict[str, dict[int, JournalView]]
    assessments: dict[str, dict[int, Assessment]]
    missing: dict[str, str] = field(default_factory=dict)  # a run's name -> why it is not among them
    cost: Tree | None = None  # r2m.paper.cost.measure's

    @property
    def judge(self) -> str:
        """Who decides the win rates: gold where the task has it, else another judge than the frozen reward model."""
        judges = [rate.judge for found in self.assessments.values() for known in found.values()
                  for rate in known.win_rates]  # fmt: skip
        return min(judges, key=lambda judge: (judge != "gold", judge == "frozen"), default="gold")

    def run_ids(self, arm: str, seeds: Values | None = None) -> tuple[str, ...]:
        """The names of an arm's runs, of those seeds."""
        views = self.runs.get(arm, {})
        return tuple(view.run_id for seed, view in sorted(views.items()) if seeds is None or seed in seeds)


def assessed(r: Results, arm: str, pick: Callable[[Assessment], float | None]) -> Values:
    found = {seed: pick(known) for seed, known in r.assessments.get(arm, {}).items()}
    return {seed: value for seed, value in sorted(found.items()) if value is not None}


def win_rate(r: Results, arm: str, against: str = "sft", controlled: bool = False) -> Values:
    """Shares by r.judge. The supervised policy's against itself is 1/2 by construction."""
    if arm == "SFT" and against == "sft":
        return dict.fromkeys(r.assessments.get(arm, {}), ITSELF)

    def pick(known: Assessment) -> float | None:
        for rate in known.win_rates:
            if (rate.judge, rate.against) == (r.judge, against):
                picked = rate.length_controlled if controlled else rate
                return None if picked is None else picked.rate
        return None

    return assessed(r, arm, pick)


def mean_of(r: Results, arm: str, key: str) -> Values:
    """A mean over the held-out responses: gold, characters, no_space_share, ..."""
    return assessed(r, arm, lambda known: known.means.get(key))


def accuracy(r: Results, arm: str, pairs: str, when: str) -> Values:
    """The reward model's on a pair set; `when`: without feedback, or with it before or after training."""

    def pick(known: Assessment) -> float | None:
        row = next((row for row in known.reward_accuracy if row.pairs == pairs), None)
        found: Accuracy | None = getattr(row, when, None)
        return None if found is None else found.accuracy

    return assessed(r, arm, pick)


def pair_sets(r: Results, arm: str) -> list[str]:
    found = r.assessments.get(arm, {}).values()
    return list(dict.fromkeys(row.pairs for known in found for row in known.reward_accuracy))


def similarity(r: Results, arm: str, kind: str, response_only: bool = False) -> Values:
    """Mean cosine of hidden states: within hacking, within normal, or cross; of all tokens, or the response's."""

    def pick(known: Assessment) -> float | None:
        found = known.similarity
        return None if found is None else getattr(found.response_only if response_only else found, kind)

    return assessed(r, arm, pick)


def journalled(r: Results, arm: str, pick: Callable[[JournalView], float]) -> Values:
    found = {seed: pick(view) for seed, view in r.runs.get(arm, {}).items()}
    return {seed: value for seed, value in sorted(found.items()) if math.isfinite(value)}


def over_rounds(r: Results, arm: str, metric: str) -> Values:
    """The mean of a metric over all rounds that have it: the height of its curve."""

    def height(view: JournalView) -> float:
        values = [value for value in view.series(metric)[1] if math.isfinite(value)]
        return fmean(values) if values else math.nan

    return journalled(r, arm, height)


def difference(a: Values, b: Values) -> Estimate | None:
    """a - b over the seeds that both have; None where they share none."""
    seeds = sorted(a.keys() & b.keys())
    return paired_difference([a[s] for s in seeds], [b[s] for s in seeds]) if seeds else None
