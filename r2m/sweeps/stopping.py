"""When a trial may be stopped early: never before its Ω has acted."""

from collections.abc import Sequence
from math import ceil
from typing import Annotated, Literal

from pydantic import Field

from r2m.config import Config, Count, Section, Share, Whole
from r2m.core.schedule import omega_reaches_minimum
from r2m.sweeps.objective import Objective


class EarlyStopping(Section):
    kind: Literal["none", "asha", "median"] = "none"
    grace: Share = 0.0  # of a run's rounds, before which it is never stopped
    reduction: Annotated[Count, Field(ge=2)] = 3  # asha: one in so many goes on
    startup_trials: Whole = 5  # median: trials before the first comparison
    omega_min: Share | None = None  # Python files only: the lowest Ω that suggest gives


def evaluations_of(config: Config) -> int:
    """How many evaluations a run makes: one every eval_every rounds, and one after the last."""
    return ceil(config.algorithm.total_rounds / config.run.eval_every)


def first_stop(config: Config, share: float) -> int:
    """The first evaluation (from 1) by which `share` of the rounds are over and, with feedback, ω has come down
    to Ω: before it the trial has not yet shown what its Ω does."""
    T, every = config.algorithm.total_rounds, config.run.eval_every
    rounds = share * T
    if config.reward.feedback:
        rounds = max(rounds, omega_reaches_minimum(T, config.reward.omega_min))
    tolerance = 1e-9  # rounds; t* is a float
    return max(1, min(ceil((rounds - tolerance) / every), evaluations_of(config)))


def check_asked(stopping: EarlyStopping, objectives: Sequence[Objective], python: bool) -> None:
    """Raises ValueError where there is nothing to stop by. `python`: whether the sweep is a Python file."""
    if not python and stopping.omega_min is not None:
        raise ValueError("early_stopping.omega_min: not in a YAML file: its parameters say it")
    if stopping.kind == "none":
        return
    asked = f"early_stopping.kind = {stopping.kind!r}"
    if len(objectives) > 1:
        raise ValueError(f"{asked}: not with several objectives; give none")
    if objectives[0].matched_kl is not None:
        raise ValueError(f"{asked}: not with matched_kl: a running trial has no value at that KL; give none")
    if python and stopping.omega_min is None:
        raise ValueError(
            f"{asked}: give early_stopping.omega_min, the lowest Ω that suggest gives: no trial is stopped before "
            "its Ω has acted"
        )


def check_saves(stopping: EarlyStopping, horizons: Sequence[Config]) -> None:
    """Raises ValueError, with the arithmetic, where no trial could be stopped before its last evaluation."""
    first = max(first_stop(config, stopping.grace) for config in horizons)
    last = max(map(evaluations_of, horizons))
    if first < last:
        return
    acts, omegas = "", [config.reward.omega_min for config in horizons if config.reward.feedback]
    if omegas:
        share = omega_reaches_minimum(1, min(omegas))
        acts = f", and Ω = {min(omegas)} acts from {share:.0%} of a run on (arccos(2Ω - 1) / π)"
    raise ValueError(
        f"early_stopping.kind = {stopping.kind!r}: nothing to save: grace = {stopping.grace}{acts}, so a trial could "
        f"be stopped from evaluation {first} of {last} on; give none, or a smaller grace, a larger Ω or more "
        "budget.evaluations"
    )
