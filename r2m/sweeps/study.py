"""Optuna's part of a sweep: the study, the sampler, the rule by which trials are stopped."""

from __future__ import annotations

import optuna

from r2m.sweeps.spec import Sweep, grace


def open_study(sweep: Sweep, database: str, name: str) -> optuna.Study:
    """The sweep's study, made where it is not there yet. `database`: an SQLAlchemy URL."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=database,
        study_name=name,
        directions=[objective.direction for objective in sweep.objectives],
        load_if_exists=True,
        pruner=pruner(sweep),
    )


def sampler(kind: str, seed: int) -> optuna.samplers.BaseSampler:
    return {
        "tpe": optuna.samplers.TPESampler,
        "random": optuna.samplers.RandomSampler,
        "nsga2": optuna.samplers.NSGAIISampler,
    }[kind](seed=seed)


def pruner(sweep: Sweep) -> optuna.pruners.BasePruner:
    """Its steps are evaluations. Asked only from the grace period on: see `grace`."""
    stopping = sweep.early_stopping
    if stopping.kind == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(grace(sweep), stopping.reduction)
    if stopping.kind == "median":
        return optuna.pruners.MedianPruner(stopping.startup_trials)
    return optuna.pruners.NopPruner()
