"""What a sweep varies: ranges by dotted key, each checked against the setting that it is a range of.

`params` is a mapping of dotted keys, such as reward.alpha, to values: a point of the space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Annotated, Any

from optuna.trial import BaseTrial
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo

from r2m.config import Algorithm, Count, Int, Number, Reward, Section
from r2m.errors import shown

Params = dict[str, Any]

SEARCHED_SECTIONS: dict[str, type[Section]] = {"algorithm": Algorithm, "reward": Reward}
_MODELS = "models are prepared before the sweep, the same for every trial"
_COST = "every trial has the same budget: give budget.trajectories"
_SPEED = "it changes speed and memory, not the result, and the sweep sets what it needs"
NOT_SEARCHED = {
    "task": "the task is what every trial is asked",
    "policy": _MODELS,
    "rollout": _SPEED,
    "run": "run.* does not change the result; repetitions are the sweep's seeds",
    "reward.model": _MODELS,
    "reward.dtype": _MODELS,
    "reward.anchor_data": _MODELS,
    "algorithm.trajectories": _COST,
    "algorithm.rounds": _COST,
    "algorithm.microbatch": _SPEED,
    "algorithm.sample_batch": _SPEED,
}
# Settings that Config checks against one another, or that the horizon depends on: their ranges are tried together.
INTERACT = {
    "algorithm.queries", "algorithm.responses", "algorithm.minibatches", "reward.minibatches", "reward.feedback",
    "reward.alpha", "reward.omega_min", "reward.attention_width", "reward.num_heads", "reward.train_head",
    "reward.hidden", "reward.labels", "reward.anchor", "reward.shaping", "reward.length_penalty", "reward.ensemble",
    "reward.members", "reward.members_differ", "reward.uncertainty", "reward.uncertainty_form", "algorithm.advantage",
    "algorithm.kl_placement", "algorithm.ratio_level", "algorithm.epochs",
}  # fmt: skip
MOST_COMBINATIONS = 10_000


class Parameter(Section):
    """One range: {uniform: [low, high]}, {loguniform: [low, high]}, {int: [low, high], step: 1} or
    {choice: [...]}. Both ends belong to it."""

    uniform: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None
    loguniform: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None
    int_: Annotated[list[Int], Field(min_length=2, max_length=2)] | None = Field(None, alias="int")
    choice: Annotated[list[Any], Field(min_length=1)] | None = None
    step: Count | None = None

    @model_validator(mode="after")
    def _one_range(self) -> Parameter:
        given = [name for name in ("uniform", "loguniform", "int_", "choice") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give one of uniform, loguniform, int, choice")
        if self.step is not None and self.int_ is None:
            raise ValueError(f"step = {self.step}: only an int has one")
        if self.choice is None:
            low, high = self.values
            if not low < high:
                raise ValueError(f"{given[0].strip('_')} = [{low}, {high}]: low must be less than high")
            if self.loguniform and low <= 0:
                raise ValueError(f"loguniform = [{low}, {high}]: low must be greater than 0")
            if self.int_ and (high - low) % (self.step or 1):
                raise ValueError(f"int = [{low}, {high}]: high - low must be a multiple of step = {self.step}")
        return self

    @property
    def values(self) -> list[Any]:
        """The two ends, or the choices."""
        return self.uniform or self.loguniform or self.int_ or self.choice or []

    def of(self, key: str) -> Parameter:
        """This range with its values as the setting `key` takes them. ValueError where it does not."""
        kind = searched_field(key).annotation
        number = self.choice is None
        if number and kind not in (int, float):
            allowed = "true or false" if kind is bool else "names"
            raise ValueError(f"{key}: it takes {allowed}; give it as a choice")
        if (self.uniform or self.loguniform) and kind is int:
            raise ValueError(f"{key}: it takes whole numbers; give int or choice")
        values = [normal(key, value) for value in self.values]
        if self.choice is None:
            return self
        if len(set(values)) < len(values):
            raise ValueError(f"{key}: choice = {shown(values)}: a value occurs twice")
        return self.model_copy(update={"choice": values})

    def suggest(self, trial: BaseTrial, key: str) -> Any:
        if self.choice is not None:
            return trial.suggest_categorical(key, self.choice)
        low, high = self.values
        if self.int_ is not None:
            return trial.suggest_int(key, low, high, step=self.step or 1)
        return trial.suggest_float(key, low, high, log=self.loguniform is not None)

    def contains(self, value: Any) -> bool:
        """Whether a value, as `normal` gives it, lies in the range."""
        if self.choice is not None:
            return value in self.choice
        low, high = self.values
        on_grid = self.int_ is None or (value - low) % (self.step or 1) == 0
        return bool(low <= value <= high and on_grid)

    def probes(self, key: str) -> Sequence[Any]:
        """Values that stand for the range when combinations are checked: all of them where they are countable
        and matter to other settings, the ends of a real range that does, else the high end (the most expensive)."""
        if self.choice is not None:
            return self.choice
        low, high = self.values
        if key not in INTERACT:
            return [high]
        return range(low, high + 1, self.step or 1) if self.int_ is not None else [low, high]


class Conditional(Section):
    """Parameters that exist only in trials where each key of `when` has one of the values."""

    when: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]
    parameters: Annotated[dict[str, Parameter], Field(min_length=1)]

    def applies(self, params: Mapping[str, Any]) -> bool:
        return all(key in params and params[key] in values for key, values in self.when.items())


def searched_field(key: str) -> FieldInfo:
    """The setting that a sweep may vary under this key. ValueError with the reason for any other."""
    section, _, name = key.partition(".")
    reason = NOT_SEARCHED.get(section, NOT_SEARCHED.get(key))
    if reason:
        raise ValueError(f"{key}: cannot be searched: {reason}")
    if section not in SEARCHED_SECTIONS:
        raise ValueError(f"{key}: unknown key; allowed: algorithm.NAME, reward.NAME")
    fields = SEARCHED_SECTIONS[section].model_fields
    if name not in fields:
        allowed = [n for n in fields if f"{section}.{n}" not in NOT_SEARCHED]
        raise ValueError(f"{key}: unknown key; allowed in {section}: {', '.join(allowed)}")
    return fields[name]


def normal(key: str, value: Any) -> Any:
    """The value as the setting takes it ("1e-5" is 1e-5). ValueError, one line, where it does not."""
    try:
        return _adapter(key).validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise ValueError(f"{key} = {shown(value)}: {message[0].lower() + message[1:]}") from None


@cache
def _adapter(key: str) -> TypeAdapter[Any]:
    field = searched_field(key)
    allowed: Any = Annotated[field.annotation, *field.metadata, Field()]
    return TypeAdapter(allowed, config=ConfigDict(allow_inf_nan=False))


def checked(
    parameters: Mapping[str, Parameter], conditional: Sequence[Conditional]
) -> tuple[dict[str, Parameter], list[Conditional]]:
    """The space with every value as its setting takes it.

    Raises ValueError, one line that begins with the place, for a wrong key, range or condition.
    """
    with at("parameters."):
        fixed = {key: parameter.of(key) for key, parameter in parameters.items()}
    seen = dict(fixed)
    blocks = []
    for i, block in enumerate(conditional):
        place = f"conditional.{i}."
        when = {}
        for key, values in block.when.items():
            if key not in seen:
                raise ValueError(f"{place}when.{key}: not a parameter listed before ({', '.join(seen)})")
            with at(f"{place}when."):
                when[key] = [normal(key, value) for value in values]
            for value in when[key]:
                if not seen[key].contains(value):
                    raise ValueError(f"{place}when.{key} = {value!r}: not in the range of {key}")
        inner = {}
        for key, parameter in block.parameters.items():
            with at(f"{place}parameters."):
                inner[key] = parameter.of(key)
            if key in fixed:
                raise ValueError(f"{place}parameters.{key}: varied already under parameters, for every trial")
            if seen.get(key, inner[key]) != inner[key]:
                raise ValueError(
                    f"{place}parameters.{key}: in another block with another range; Optuna needs one range a name"
                )
        seen |= inner
        blocks.append(block.model_copy(update={"when": when, "parameters": inner}))
    return fixed, blocks


@contextmanager
def at(place: str) -> Iterator[None]:
    """Puts the place before the message of a ValueError, or a UserError, which is one."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}{error}") from None


def points(parameters: Mapping[str, Parameter], conditional: Sequence[Conditional]) -> list[Params]:
    """The combinations of the ranges' probes: what is checked, and planned for, before anything runs.

    Raises ValueError where there are more than MOST_POINTS.
    """
    found: list[Params] = [{}]
    for applies, block in [(lambda _: True, parameters), *((b.applies, b.parameters) for b in conditional)]:
        for key, parameter in block.items():
            probes = parameter.probes(key)
            if len(probes) > MOST_COMBINATIONS:
                raise _too_many(key)
            found = [
                more
                for point in found
                for more in ([point | {key: v} for v in probes] if applies(point) and key not in point else [point])
            ]
            if len(found) > MOST_COMBINATIONS:
                raise _too_many(key)
    return found


def _too_many(key: str) -> ValueError:
    return ValueError(
        f"parameters.{key}: more than {MOST_COMBINATIONS} combinations of whole numbers and choices; give a larger "
        "step or fewer choices"
    )
