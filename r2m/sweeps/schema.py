"""The tree of a sweep file, with the checks that need more than one of its keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Annotated, Any, Literal

from optuna.trial import BaseTrial
from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from r2m.config import Config, Section, Seed, load, override, validate
from r2m.config.load import read_tree, recipe_path, recipes
from r2m.config.paths import LOCAL_OR_HUB, setting
from r2m.errors import UserError, of_database, said, shown
from r2m.sweeps.cost import Budget, equal_cost
from r2m.sweeps.objective import Constraint, Objective, check_judged
from r2m.sweeps.settings import check_set, checked_baselines
from r2m.sweeps.space import MOST_COMBINATIONS, Conditional, Parameter, Params, at, checked, normal, points
from r2m.sweeps.stopping import EarlyStopping, check_asked, check_saves, first_stop

Seeds = Annotated[list[Seed], Field(min_length=1)]


class Sampler(Section):
    kind: Literal["tpe", "random", "nsga2"] = "tpe"
    seed: Seed = 0


class Sweep(Section):
    recipe: str
    set: dict[str, Any] = Field({})
    parameters: dict[str, Parameter] = Field({})
    conditional: list[Conditional] = Field([])
    objectives: Annotated[list[Objective], Field(min_length=1)]
    constraints: list[Constraint] = Field([])
    sampler: Sampler = Sampler()
    early_stopping: EarlyStopping = EarlyStopping()
    budget: Budget = Budget()
    baselines: dict[str, dict[str, Any]] = Field(
        {"RLOO": {"reward.feedback": False}, "R2M default": {"reward.feedback": True}}
    )
    enqueue: list[Params] = Field([])
    seeds: Seeds = Field([0])
    confirm: list[Seed] = Field([1000, 1001, 1002, 1003, 1004])  # []: the search's answer is all there is

    _define: Callable[[BaseTrial], Params] | None = PrivateAttr(None)  # a Python file's suggest
    _base: Config = PrivateAttr()
    _kept_recipe: str | None = PrivateAttr(None)  # the file of the recipe as it was when the sweep began

    @property
    def source(self) -> str:
        """Where the recipe is read: the copy that a sweep keeps, else the recipe itself."""
        return self._kept_recipe or self.recipe

    @property
    def most_runs(self) -> int:
        """Trials, baselines and confirmation, as if no baseline were a trial."""
        baselines = len(self.baselines)
        return (self.budget.trials + baselines) * len(self.seeds) + (1 + baselines) * len(self.confirm)

    @property
    def base(self) -> Config:
        """The recipe with `set` and nothing else."""
        return self._base

    @field_validator("recipe")
    @classmethod
    def _absolute(cls, recipe: str) -> str:
        with suppress(UserError):  # of one that is none: `_check_set` says so
            return recipe if recipe in recipes() else str(recipe_path(recipe))
        return recipe

    @model_validator(mode="after")
    def _checked(self, info: ValidationInfo) -> Sweep:
        context = info.context or {}
        self._define, self._kept_recipe = context.get("suggest"), context.get("recipe")
        if self._define is None and not self.parameters and self.budget.trials:
            raise ValueError(
                "parameters: missing: nothing varies; to compare the baselines alone, give budget.trials: 0"
            )
        if self.budget.trials == 0:
            self._check_no_search()
        if self._define is not None and (self.parameters or self.conditional):
            raise ValueError("parameters: not in a Python file: its suggest says what varies")
        parameters, conditional = checked(self.parameters, self.conditional)
        sweep = self.model_copy(update={"parameters": parameters, "conditional": conditional})
        return sweep._consistent()

    def _consistent(self) -> Sweep:
        """With points and baselines as the settings take them."""
        self._check_set()
        check_judged(
            self.objectives,
            self.constraints,
            gold=self._base.task.kind == "forum",
            judge=self._base.run.judge is not None,
        )
        self._check_seeds()
        check_asked(self.early_stopping, self.objectives, python=self._define is not None)
        sweep = self.model_copy(
            update={"enqueue": self._checked_points(), "baselines": checked_baselines(self.baselines, self.build)}
        )
        if self.early_stopping.kind != "none":
            check_saves(sweep.early_stopping, sweep.horizons)
        return sweep

    def _check_no_search(self) -> None:
        if self.parameters or self._define is not None:
            raise ValueError("budget.trials = 0: without a search, leave parameters out")
        if not self.baselines:
            raise ValueError("baselines: missing: without a search, there is nothing else to run")
        if self.confirm:
            raise ValueError(
                f"confirm = {self.confirm}: without a search there is no winner to confirm; give confirm: []"
            )

    def _check_set(self) -> None:
        check_set(self.set, self.parameters, self.budget.trajectories)
        overrides = [override(key, value) for key, value in self.set.items()]
        try:
            self._base, tree = load(self.source, overrides), read_tree(self.source, overrides)
        except UserError as error:
            raise ValueError(f"recipe and set: {error}" if self.set else str(error)) from None
        for key in LOCAL_OR_HUB:  # relative to this folder, in the recipe or in `set`: from here on to none
            section, name = key.split(".")
            place = setting(self._base, key)
            if place is not None and tree.get(section, {}).get(name) != place:
                self.set[key] = place

    def _check_seeds(self) -> None:
        for name in ("seeds", "confirm"):
            seeds = getattr(self, name)
            if len(set(seeds)) < len(seeds):
                raise ValueError(f"{name} = {seeds}: a seed occurs twice")
        if both := sorted(set(self.seeds) & set(self.confirm)):
            raise ValueError(
                f"confirm = {self.confirm}: {both} are among seeds; the winner is confirmed on fresh ones"
            )

    def _checked_points(self) -> list[Params]:
        """Every combination that matters makes a valid run; the given points lie in the space."""
        with at(f"budget.trajectories = {self.budget.trajectories}: "):
            self.build({})
        for params in self.points():
            try:
                self.build(params)
            except ValueError as error:
                raise ValueError(self._blame(params, str(error))) from None
        return [self._given(i, point) for i, point in enumerate(self.enqueue)]

    def _blame(self, params: Params, message: str) -> str:
        """The message with the one parameter that is at fault by itself, or with all of them."""
        for key, value in params.items():
            try:
                self.build({key: value})
            except ValueError as error:
                if str(error) == message:
                    return f"parameters.{key} = {value!r}: {message}"
        return f"parameters, at {', '.join(f'{k} = {v!r}' for k, v in params.items())}: {message}"

    def _given(self, i: int, point: Params) -> Params:
        if self._define is not None:
            return point  # what suggest asks for is known to suggest alone
        given = {}
        for key, value in point.items():
            parameter = dict(self.ranges()).get(key)
            if parameter is None:
                raise ValueError(f"enqueue.{i}.{key}: not a parameter")
            with at(f"enqueue.{i}."):
                given[key] = normal(key, value)
            if not parameter.contains(given[key]):
                raise ValueError(f"enqueue.{i}.{key} = {value!r}: not in its range, {parameter.values}")
        return given

    def ranges(self) -> list[tuple[str, Parameter]]:
        """Every parameter, the conditional ones included: those of several blocks occur several times."""
        blocks = [self.parameters, *(block.parameters for block in self.conditional)]
        return [item for block in blocks for item in block.items()]

    @cached_property
    def horizons(self) -> list[Config]:
        """The configurations whose T, evaluations and Ω stand for all trials'."""
        if self._define is None:
            return [self.build(params) for params in self.points()]
        if self.early_stopping.omega_min is None:
            return [self.build({})]
        found, most = [], self.base.algorithm.queries * self.base.algorithm.responses
        if most > MOST_COMBINATIONS:
            raise ValueError(
                f"early_stopping.kind = {self.early_stopping.kind!r}: in a Python file, where trials may have any K, "
                f"for rounds of at most {MOST_COMBINATIONS:,} trajectories, and these have {most:,}; give none"
            )
        fixed = {"reward.feedback": True, "reward.omega_min": self.early_stopping.omega_min}
        for K in range(2, most + 1):
            with suppress(UserError):  # of a K that no trial can have
                found.append(self.build(fixed | {"algorithm.responses": K}))
        return found

    def points(self) -> list[Params]:
        """Points of the space that stand for all of it: to check, and to plan for. A Python file's is the base."""
        return points(self.parameters, self.conditional) if self._define is None else [{}]

    def build(self, params: Mapping[str, Any]) -> Config:
        """The settings of a run with these parameters, at equal cost. Raises UserError, one line."""
        tree = self.base.model_dump()
        for key, value in {**params, **self.equal_cost(params)}.items():
            section, name = key.split(".")
            tree[section][name] = value
        return validate(tree)

    def equal_cost(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return equal_cost(self.base, params, self.budget.trajectories, self.budget.evaluations)

    def suggest(self, trial: BaseTrial) -> Params:
        """A trial's parameters, asked of Optuna. Raises UserError where a Python file's are not settings."""
        if self._define is None:
            params = {key: parameter.suggest(trial, key) for key, parameter in self.parameters.items()}
            for block in self.conditional:
                if block.applies(params):
                    params |= {key: p.suggest(trial, key) for key, p in block.parameters.items()}
            return params
        try:
            params = self._define(trial)
        except BaseException as error:  # whatever it is, it is the file's
            if of_database(error):
                raise
            raise UserError(f"suggest, trial {trial.number}: {said(error)}") from None
        if not isinstance(params, dict):
            raise UserError(
                f"suggest, trial {trial.number}: returned {shown(params)}, expected a mapping of parameters"
            )
        try:
            params = {key: normal(key, value) for key, value in params.items()}
            config = self.build(params)
        except ValueError as error:
            raise UserError(f"suggest, trial {trial.number}: {error}") from None
        if self.early_stopping.kind != "none" and first_stop(config, self.early_stopping.grace) > grace(self):
            raise UserError(
                f"suggest, trial {trial.number}: its Ω = {config.reward.omega_min} acts after evaluation "
                f"{grace(self)}, from which on trials may be stopped; lower early_stopping.omega_min"
            )
        return params


def grace(sweep: Sweep) -> int:
    """The first evaluation, from 1, at which a trial may be stopped: in every trial, Ω has acted by then."""
    return max(first_stop(config, sweep.early_stopping.grace) for config in sweep.horizons)
