"""An experiment over arms and seeds as the paper has it: one reading of the table of results."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from r2m.results.assessment import Accuracy, Assessment
from r2m.results.table import Arm, Values, values
from r2m.runs.journal import JournalView

ITSELF, PERCENT = 50.0, 100.0  # a win rate against itself, a tie counting half
NEGLIGIBLE = 1.1  # of RLOO's cost; the paper names no number


@dataclass(frozen=True)
class Experiment:
    """`arms`: those that have a finished run, by label, with no others. What a run does not have is left out of
    Values, so that a mean says over how many seeds it is."""

    name: str
    recipe: str
    seeds: tuple[int, ...]
    settings: Mapping[str, Mapping[str, Any]]  # of every arm, by label, over the recipe's
    arms: Mapping[str, Arm]
    missing: dict[str, str] = field(default_factory=dict)  # a run -> why it is not among them
    cost: dict[str, Any] | None = None  # r2m.paper.cost.measure's

    def views(self, arm: str) -> dict[int, JournalView]:
        return self.arms[arm].finished if arm in self.arms else {}

    def assessed(self, arm: str) -> dict[int, Assessment]:
        results = self.arms[arm].results if arm in self.arms else {}
        return {seed: result.assessment for seed, result in results.items() if result.assessment}

    def run_ids(self, arm: str, seeds: Values | None = None) -> tuple[str, ...]:
        """The names of an arm's runs, of those seeds."""
        views = self.views(arm).items()
        return tuple(view.run_id for seed, view in views if seeds is None or seed in seeds)

    @property
    def judge(self) -> str:
        """Who decides the win rates: gold where the task has it, else another judge than the vanilla reward model."""
        judges = [w.judge for arm in self.arms for a in self.assessed(arm).values() for w in a.win_rates]
        return min(judges, key=lambda judge: (judge != "gold", judge == "vanilla"), default="gold")

    def win_rate(self, arm: str, against: str = "sft", controlled: bool = False) -> Values:
        """Per cent, by `judge`. The supervised policy's against itself is 1/2 by construction."""
        if arm == "SFT" and against == "sft":
            return dict.fromkeys(self.assessed(arm), ITSELF)
        judge = self.judge

        def pick(a: Assessment) -> float | None:
            found = next((w for w in a.win_rates if (w.judge, w.against) == (judge, against)), None)
            share = found.length_controlled if found and controlled else found
            return PERCENT * share.rate if share and share.rate is not None else None

        return values(self.assessed(arm), pick)

    def mean_of(self, arm: str, key: str, scale: float = 1.0) -> Values:
        """A mean over the held-out responses: gold, characters, no_space_share, ..."""
        return values(self.assessed(arm), lambda a: None if (mean := a.means.get(key)) is None else scale * mean)

    def accuracy(self, arm: str, pairs: str, when: str) -> Values:
        """The reward model's on a pair set, per cent. `when`: without feedback, with it before or after training."""

        def pick(a: Assessment) -> float | None:
            row = next((row for row in a.reward_accuracy if row.pairs == pairs), None)
            found: Accuracy | None = getattr(row, when, None)
            return PERCENT * found.accuracy if found else None

        return values(self.assessed(arm), pick)

    def pair_sets(self, arm: str) -> list[str]:
        return list(dict.fromkeys(row.pairs for a in self.assessed(arm).values() for row in a.reward_accuracy))

    def similarity(self, arm: str, kind: str, response_only: bool = False) -> Values:
        """Mean cosine of hidden states: within hacking, within normal, or cross; of all tokens, or the response's."""

        def pick(a: Assessment) -> float | None:
            found = a.similarity.response_only if a.similarity and response_only else a.similarity
            return getattr(found, kind, None)

        return values(self.assessed(arm), pick)

    def over_rounds(self, arm: str, metric: str) -> Values:
        """The mean of a metric over all rounds that have it: the height of its curve."""

        def height(view: JournalView) -> float | None:
            there = [value for value in view.series(metric)[1] if math.isfinite(value)]
            return fmean(there) if there else None

        return values(self.views(arm), height)
