"""The tree of a pipeline file, but for what its steps are of: r2m.pipelines.kinds has those."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from r2m.config import Count, Number, Positive, Section, Whole
from r2m.pipelines.cron import check_cron
from r2m.runs.folder import is_name

LONGEST_NAME_OF_PIPELINE, LONGEST_NAME_OF_STEP = 50, 30  # characters: of both and of a time runs have their names
PLAIN_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)  # a step's name, a parameter's, an output's


def _pipeline_name(name: str) -> str:
    if not is_name(name) or len(name) > LONGEST_NAME_OF_PIPELINE:
        raise PydanticCustomError(
            "name", f"letters, digits, '_' and, later, '.' and '-' are allowed, {LONGEST_NAME_OF_PIPELINE} at most"
        )
    return name


def _zone(name: str) -> str:
    if name not in available_timezones():
        raise PydanticCustomError("zone", "a time zone's name is allowed, such as UTC or Europe/Zurich")
    return name


class Schedule(Section):
    """When a pipeline is due, and what becomes of times at which it could not run."""

    cron: Annotated[str, AfterValidator(check_cron)] | None = None  # minute hour day month weekday
    time_zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    overlap: Literal["skip", "queue"] = "skip"  # due while it runs: not at all, or afterwards
    missed: Literal["skip", "latest", "all"] = "latest"  # what is run of the times that passed without a run
    most: Count = 7  # of them, where all are run
    late_hours: Positive = 1.0  # after its time a run that is late has been missed

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)


class Step(Section):
    """What all steps have; the rest of a step's keys are of its kind, `use`."""

    use: str
    needs: list[str] = Field([])  # steps that come first, beside those whose outputs it uses
    retries: Whole | None = None  # null: the pipeline's
    settings: dict[str, Any] = Field({})  # with references

    @model_validator(mode="before")
    @classmethod
    def _apart(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            raise PydanticCustomError("step", "expected a mapping with use")
        own = {key: value for key, value in tree.items() if key in ("use", "needs", "retries")}
        return own | {"settings": {key: value for key, value in tree.items() if key not in own}}


class Pipeline(Section):
    """`parameters`: by name, with what they are where nothing else is asked for. `steps`: by name, as written."""

    name: Annotated[str, AfterValidator(_pipeline_name)]
    parameters: dict[str, Any] = Field({})
    schedule: Schedule = Schedule()
    retries: Annotated[Whole, Field(le=20)] = 2  # of a step, beside the first attempt
    backoff_s: Annotated[Number, Field(ge=0)] = 30.0  # before the first retry; twice as long before each later one
    steps: Annotated[dict[str, Step], Field(min_length=1)]

    @model_validator(mode="after")
    def _names(self) -> Pipeline:
        for what, names in (("steps", self.steps), ("parameters", self.parameters)):
            for name in names:
                if not PLAIN_NAME.fullmatch(name) or len(name) > LONGEST_NAME_OF_STEP:
                    raise ValueError(
                        f"{what}.{name}: a name of letters, digits and '_' is allowed, no digit first, "
                        f"{LONGEST_NAME_OF_STEP} at most"
                    )
        if both := sorted(self.steps.keys() & self.parameters.keys()):
            raise ValueError(f"steps.{both[0]}: a parameter has this name")
        return self
