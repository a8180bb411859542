"""Optuna's part of a sweep: the study, the sampler, the rule by which trials are stopped."""

import math
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean
from typing import Any, TypeVar

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from r2m.runs.folder import PRUNED
from r2m.runs.journal import JournalView
from r2m.sweeps.objective import value_of, violations
from r2m.sweeps.schema import Sweep, grace

_Result = TypeVar("_Result")
Say = Callable[[str], None]

BUSY_S = 5.0  # that SQLite waits for a lock before the user is told of it
SAID_EVERY_S = 60.0


optuna.logging.set_verbosity(optuna.logging.ERROR)  # it tells of every study, and warns in SQL statements


def open_study(sweep: Sweep, database: str, name: str, say: Say = print) -> optuna.Study:
    """The sweep's study, made where it is not there yet. `database`: an SQLAlchemy URL of SQLite.

    Where another process holds the database, every request waits until it lets go; `say` is told.
    """
    return optuna.create_study(
        storage=_storage(database, say),
        study_name=name,
        directions=[objective.direction for objective in sweep.objectives],
        load_if_exists=True,
        pruner=pruner(sweep),
    )


def study_to_read(sweep: Sweep, database: str, name: str, exists: bool, say: Say = print) -> optuna.Study:
    """The same where nothing may be written; an empty one in memory where there is none (`exists`: the file)."""
    if exists:
        try:
            return optuna.load_study(study_name=name, storage=_storage(database, say))
        except KeyError:  # its driver was killed before it made one
            pass
    return optuna.create_study(directions=[objective.direction for objective in sweep.objectives])


def _storage(database: str, say: Say) -> RDBStorage:
    connect = {"timeout": BUSY_S, "factory": partial(_Connection, say=say)}
    return RDBStorage(database, {"connect_args": connect})


class _Connection(sqlite3.Connection):
    """One that waits for other processes for as long as they hold the database, and says so."""

    def __init__(self, database: str, *args: Any, say: Say, **options: Any) -> None:
        super().__init__(database, *args, **options)
        self._database, self._say, self._said = database, say, -SAID_EVERY_S

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(factory or _Cursor)

    def commit(self) -> None:
        self.patiently(super().commit)

    def patiently(self, request: Callable[[], _Result]) -> _Result:
        while True:
            try:
                return request()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                if time.monotonic() - self._said >= SAID_EVERY_S:
                    self._said = time.monotonic()
                    self._say(f"waiting for {self._database}, which another process holds")
                time.sleep(0.05)  # SQLite itself has waited, but for two that wait for each other


class _Cursor(sqlite3.Cursor):
    connection: _Connection

    def execute(self, *args: Any) -> Any:
        return self.connection.patiently(partial(super().execute, *args))

    def executemany(self, *args: Any) -> Any:
        return self.connection.patiently(partial(super().executemany, *args))


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


def tell(study: optuna.Study, trial: optuna.Trial, sweep: Sweep, views: Sequence[JournalView]) -> None:
    """Record what a trial's runs came to: means over the seeds of the objectives and constraints, or why there are
    none."""
    failed = next((view for view in views if view.status == "failed"), None)
    values = [fmean(value_of(view, objective) for view in views) for objective in sweep.objectives]
    state, reason = TrialState.COMPLETE, ""
    if failed is not None:
        state, reason = TrialState.FAIL, failed.events[-1].get("reason", "failed")
    elif pruned := [view for view in views if view.status == PRUNED]:
        state, reason = TrialState.PRUNED, pruned[0].events[-1].get("reason", "")  # an alarm's; none of the pruner
    elif not all(map(math.isfinite, values)):
        state, reason = TrialState.FAIL, f"the objective is {values}"
    if reason:
        trial.set_user_attr("reason", reason)
    if state == TrialState.COMPLETE:
        excesses = zip(*(violations(view, sweep.constraints) for view in views), strict=True)
        for constraint, by_run in zip(sweep.constraints, excesses, strict=True):
            trial.set_constraint(constraint.metric, fmean(by_run))
    study.tell(trial, values if state == TrialState.COMPLETE else None, state=state)
