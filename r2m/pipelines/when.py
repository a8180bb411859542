"""What has to hold before a policy becomes the champion: the settings of a pipeline's `promote`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from r2m.config import Number, Positive, Section, Seed, Share
from r2m.config.types import Name

JudgedMetric = Literal["eval/gold", "eval/win_rate", "eval/vanilla"]


class WantedDifference(Section):
    """By how much the arm has to be above another one, paired by seed."""

    over: Name  # the comparison's baseline
    metric: JudgedMetric | None = None  # null: the comparison's
    same_kl: bool = False  # at the largest KL that both reach, in place of the end of training
    at_least: Number = 0.0
    finding: bool = True  # the interval's lower end has to be that, on five seeds or more; false: the mean will do


class When(Section):
    """What has to hold."""

    difference: WantedDifference | None = None
    kl_at_most: Positive | None = None  # nats per sequence, of each of the arm's runs at its end
    alarm: Literal["none", "any"] = "none"  # any: what the alarm says is no condition
    champion_win_rate: Share | None = None  # that the interval's lower end has to be
    chosen_on: list[Seed] = Field([])  # seeds on whose results the arm was chosen: they are not fresh

    @property
    def over(self) -> str | None:
        """The arm that it has to be above."""
        return None if self.difference is None else self.difference.over

    @model_validator(mode="after")
    def _judged(self) -> When:
        if self.difference is None and self.champion_win_rate is None:
            raise ValueError("when: difference or champion_win_rate is needed; the others only keep harm away")
        return self
