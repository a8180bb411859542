"""A sweep's jobs on Ray Tune: it places them, runs them at once as far as there is room, and tries again where a
process or a node dies. What to run and what came of it is the ledger's business.

Tune never stops a trial, reports nothing and restores nothing here: a stop file ends a run between two rounds,
results are in the journals, and a new session starts a new experiment from the ledger.
"""

import logging
import os
import shutil
import threading
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.search import Searcher

from r2m.config import validate
from r2m.errors import UserError
from r2m.runs.folder import JOURNAL
from r2m.runs.journal import read, wait_until_free
from r2m.sweeps.ledger import ENDED, Job, Ledger
from r2m.sweeps.plan import DRIVER_CPU, SweepPlan
from r2m.training.driver import explained
from r2m.training.gauges import live_gauges
from r2m.training.loop import run_loop
from r2m.training.ray_train import ray_trainer
from r2m.training.vllm_engine import RayEngine

SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer output prints a banner even where it is asked for nothing
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of models mean what they mean to the user
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the journal has it all
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


class Tuning:
    """Tune in a thread of its own: Ray's signal handlers stay out of the main thread."""

    def __init__(self, ledger: Ledger, folder: Path, plan: SweepPlan, max_failures: int) -> None:
        self.ledger = ledger
        self.error: BaseException | None = None
        # It prints the traceback of a process that died and is replaced; the journal and the driver tell of that.
        logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)
        os.environ.update({key: value for key, value in SETTINGS.items() if key not in os.environ})
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier session
        self._tuner = tune.Tuner(
            tune.with_resources(run_job, {"cpu": DRIVER_CPU if plan.nested else 1}),
            tune_config=tune.TuneConfig(
                search_alg=_Suggest(ledger, {"nested": plan.nested, "gpu_share": plan.gpu_share or 1.0}),
                num_samples=-1,
                max_concurrent_trials=plan.concurrent,
                reuse_actors=True,  # a process imports torch once
            ),
            run_config=tune.RunConfig(
                name=folder.name,
                storage_path=str(folder.parent),
                failure_config=tune.FailureConfig(max_failures=max_failures),
                callbacks=[_Settle(self)],
                verbose=0,
            ),
        )
        self.thread = threading.Thread(target=self._fit, name="tune", daemon=True)
        self.thread.start()

    def _fit(self) -> None:
        try:
            self._tuner.fit()
        except BaseException as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        self.error = self.error or error
        self.ledger.stop()


class _Hollow:
    """Tune writes all that it is given to its folder, as a pickle. Nothing reads it, and there is nothing in it."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Suggest(_Hollow, Searcher):
    def __init__(self, ledger: Ledger, settings: dict[str, Any]) -> None:
        super().__init__()
        self._ledger, self._settings = ledger, settings

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        job = self._ledger.next()
        if job is None:
            return Searcher.FINISHED if self._ledger.done else None
        runs = [
            {"config": run.config.model_dump(mode="json"), "folder": str(run.folder), "models": list(run.models)}
            for run in job.runs
        ]
        return self._settings | {"name": job.runs[0].name, "runs": runs}

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """See _Settle, which is told what the error was."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study and the journals have it."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError


class _Settle(_Hollow, TrialProgressCallback):
    """In the place of the callback by which Tune would tell of every trial on the terminal."""

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict, **info: Any) -> None:
        pass

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._settle(trial, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._settle(trial, str(trial.get_error()))

    def _settle(self, trial: Any, error: str | None) -> None:
        ledger = self._tuning.ledger
        try:
            cause = error and explained(RuntimeError(error))
            if isinstance(cause, UserError):  # it would meet every other run too
                raise cause
            job: Job = ledger.active[trial.config["name"]]
            ledger.settle(job, error and error.strip().splitlines()[-1])
        except BaseException as failure:  # Tune would log it and wait for ever
            ledger.active.pop(trial.config["name"], None)
            self._tuning.fail(failure)


def run_job(job: dict[str, Any]) -> None:
    """In a Tune process: the runs of a job, one after another, until one does not finish."""
    for run in job["runs"]:
        config, folder = validate(run["config"]), Path(run["folder"])
        if read(folder / JOURNAL).status not in ENDED:
            wait_until_free(folder / JOURNAL)
            if job["nested"]:
                ray_trainer(config, folder, tuple(run["models"]), job["gpu_share"]).fit()
            else:
                with live_gauges(config, folder):
                    run_loop(config, folder, tuple(run["models"]), start_engine=RayEngine)
        if read(folder / JOURNAL).status != "finished":
            return
