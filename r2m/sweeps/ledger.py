"""What a sweep has done and what it does next, from its study and its runs' journals alone: no Ray in here.

The order is: baselines that lie outside the search space, the trials, then the confirmation of the winner beside
the baselines on fresh seeds. Nothing but the study and the journals is remembered between sessions, so a sweep that
was killed anywhere goes on from what they say: a trial that the study has as running takes up its runs' checkpoints.
"""

import math
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.trial import TrialState

from r2m.errors import UserError
from r2m.files import removed
from r2m.results.table import trial_name
from r2m.runs.folder import BEST_JUDGED, CHECKPOINTS, JOURNAL, PRUNED, STOP_FILE, run_folder
from r2m.runs.journal import Journal, JournalReader, JournalView, find, read, wait_until_free
from r2m.runs.records import Record
from r2m.sweeps.ranking import BASELINE, label_of, run_name, winner
from r2m.sweeps.schema import Sweep, grace
from r2m.sweeps.settings import slug
from r2m.sweeps.spec import baseline_point, config_of
from r2m.sweeps.study import sampler, tell
from r2m.training.start import StartedRun, new_run

ENDED = ("finished", PRUNED, "failed")

Role = Literal["baseline", "search", "confirm"]


@dataclass
class Job:
    """What one Tune trial runs: an arm on some seeds, one run after another."""

    arm: str  # t003, or a baseline's slug
    label: str
    role: Role
    params: Mapping[str, Any]
    runs: list[StartedRun]
    trial: optuna.Trial | None = None
    evaluations: dict[int, float] = field(default_factory=dict)  # of the first run: step -> first objective
    told: int = 0  # of these, those that the study has from an earlier session

    def __post_init__(self) -> None:
        self.readers = [JournalReader(run.journal) for run in self.runs]


@dataclass
class Ledger:
    """All methods may be called from any thread.

    Args:
        models: the policy and the reward model of every run.
        experiment: MLflow's, of the runs.
        extra: settings of every run that are not the sweep's own, such as run.storage.
        remaining_s: seconds left to start new trials in.
    """

    sweep: Sweep
    name: str
    storage: str
    study: optuna.Study
    models: tuple[str, str]
    experiment: str
    extra: tuple[str, ...] = ()
    remaining_s: Callable[[], float] = lambda: math.inf
    active: dict[str, Job] = field(default_factory=dict)  # by the first run's name
    jobs: list[Job] = field(default_factory=list)  # all that were started in this session
    stopping: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        points = {label: baseline_point(self.sweep, label) for label in self.sweep.baselines}
        self.outside = {slug(label): label for label, point in points.items() if point is None}
        for label, point in points.items():
            if point is not None:
                self.study.enqueue_trial(point, user_attrs={BASELINE: label}, skip_if_exists=True)
        for point in self.sweep.enqueue:
            self.study.enqueue_trial(point, skip_if_exists=True)
        self.grace = grace(self.sweep) if self.sweep.early_stopping.kind != "none" else None

    def next(self) -> Job | None:
        """The next job; None where it has to wait for those that are running, or there is none: see `done`."""
        with self._lock:
            for candidate in () if self.stopping else self._candidates():
                self.active[candidate.runs[0].name] = candidate
                self.jobs.append(candidate)
                return candidate
            return None

    @property
    def done(self) -> bool:
        """Whether `next` will never have a job again."""
        with self._lock:
            return not self.active and (self.stopping or next(self._candidates(dry=True), None) is None)

    def _candidates(self, dry: bool = False) -> Iterator[Any]:
        """Jobs to start, in order; `dry` starts nothing and gives anything in their place."""
        for arm, label in self.outside.items():
            if not self._ended_or_active(arm, self.sweep.seeds):
                overrides = self.sweep.baselines[label]
                yield dry or self._job(arm, label, "baseline", overrides, self.sweep.seeds)
        yield from self._trials(dry)
        if any(job.role != "confirm" for job in self.active.values()):
            return
        for arm, label, params in self.confirmed_arms():
            for seed in self.sweep.confirm:
                if not self._ended_or_active(arm, [seed]):
                    yield dry or self._job(arm, label, "confirm", params, [seed])

    def _trials(self, dry: bool) -> Iterator[Any]:
        active = {job.trial.number for job in self.active.values() if job.trial}
        while True:
            trials = self.study.get_trials(deepcopy=False)
            left = [t for t in trials if t.state == TrialState.RUNNING and t.number not in active]
            waiting = [t for t in trials if t.state == TrialState.WAITING]
            started = len(trials) - len(waiting)
            more = started < self.sweep.budget.trials and self.remaining_s() > 0
            if not (left or more or any(BASELINE in t.user_attrs for t in waiting)):  # a baseline always runs
                return
            if dry:
                yield True
                return
            # A trial's draws are a function of the seed and its number: a resumed sampler does not repeat itself.
            number = left[0].number if left else started
            self.study.sampler = sampler(self.sweep.sampler.kind, self.sweep.sampler.seed + 10_000 * number)
            trial = optuna.Trial(self.study, left[0]._trial_id) if left else self.study.ask()
            try:
                yield self._start(trial)
            except UserError as error:  # a combination that no run can have, found before anything is run
                trial.set_user_attr("reason", str(error))
                self.study.tell(trial, state=TrialState.FAIL)

    def _start(self, trial: optuna.Trial) -> Job:
        params = self.sweep.suggest(trial)
        job = self._job(trial_name(trial.number), label_of(trial), "search", params, self.sweep.seeds)
        job.trial = trial
        job.told = len(self.study.get_trials(deepcopy=False)[trial.number].intermediate_values)
        trial.set_user_attr("runs", [run.name for run in job.runs])
        return job

    def confirmed_arms(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Arm, label and params of the winner, if there is one, and of every baseline."""
        trials = self.study.get_trials(deepcopy=False)
        arms = [(arm, label, dict(self.sweep.baselines[label])) for arm, label in self.outside.items()]
        best = winner(self.sweep, trials)
        for trial in trials:
            if BASELINE in trial.user_attrs or trial.number == best:
                params = self.sweep.suggest(optuna.trial.FixedTrial(trial.params))
                arms.append((trial_name(trial.number), label_of(trial), params))
        return arms

    def _job(self, arm: str, label: str, role: Role, params: Mapping[str, Any], seeds: list[int]) -> Job:
        return Job(arm, label, role, params, [self._run(arm, label, role, params, seed) for seed in seeds])

    def _run(self, arm: str, label: str, role: Role, params: Mapping[str, Any], seed: int) -> StartedRun:
        """The run of an arm on a seed: taken up where there is one, else new."""
        config = config_of(self.sweep, params, seed, *self.extra)
        name = run_name(self.name, arm, seed)
        folder = run_folder(self.storage, name)
        if JournalReader(folder / JOURNAL).new_records():
            (folder / STOP_FILE).unlink(missing_ok=True)
            return StartedRun(config, folder, self.models)
        shutil.rmtree(folder, ignore_errors=True)  # of a driver that was killed while it made it
        tags = {"r2m.sweep": self.name, "r2m.trial": label, "r2m.role": role}
        return new_run(config, name, experiment=self.experiment, parent=self.name, tags=tags)

    def _ended_or_active(self, arm: str, seeds: list[int]) -> bool:
        names = [run_name(self.name, arm, seed) for seed in seeds]
        return names[0] in self.active or all(
            (view := self.view(name)) is not None and view.status in ENDED for name in names
        )

    def view(self, run: str) -> JournalView | None:
        return find(run_folder(self.storage, run) / JOURNAL)

    def observe(self, job: Job) -> list[Record]:
        """What the job's journals have had since the last call; the study is told of the first run's evaluations.

        A trial that the study's pruner gives up is asked to end for good after the round in hand.
        """
        with self._lock:
            by_run = [reader.new_records() for reader in job.readers]
            metric = self.sweep.objectives[0].metric
            new = [
                (record["step"], record["metrics"][metric])
                for record in by_run[0]
                if record["kind"] == "round" and metric in record["metrics"]
            ]
            for step, value in new:
                if step not in job.evaluations:  # a resumed run replays some
                    job.evaluations[step] = value
                    if job.trial and self.grace and len(job.evaluations) > job.told:
                        job.trial.report(value, len(job.evaluations))
            if new and job.trial is not None and self._prunable(job) and job.trial.should_prune():
                (job.runs[0].folder / STOP_FILE).write_text(PRUNED)
            return [record for records in by_run for record in records]

    def _prunable(self, job: Job) -> bool:
        assert job.trial is not None
        if self.grace is None or BASELINE in job.trial.user_attrs:
            return False
        step, total = max(job.evaluations), job.runs[0].config.algorithm.total_rounds
        return len(job.evaluations) >= self.grace and step < total

    def settle(self, job: Job, error: str | None) -> None:
        """Record how a job ended. One that was stopped, to be gone on with, stays running in the study."""
        with self._lock:
            self.observe(job)
            statuses = [read(run.journal).status for run in job.runs]
            outcome = "failed" if error or "failed" in statuses else PRUNED if PRUNED in statuses else None
            for run, status in zip(job.runs, statuses, strict=True):
                open_ended = status not in ENDED  # its worker is dead, or its seed was not begun
                if outcome is not None and open_ended:
                    wait_until_free(run.journal)
                    with Journal(run.journal) as journal:
                        journal.event(outcome, reason=error or f"the trial's other seed has {outcome}")
            if job.trial is not None and (outcome is not None or set(statuses) == {"finished"}):
                for run in job.runs:  # a search leaves journals; models are kept of the confirmation
                    for part in (CHECKPOINTS, BEST_JUDGED, "policy", "reward"):
                        removed(run.folder / part)
                tell(self.study, job.trial, self.sweep, [read(run.journal) for run in job.runs])
            del self.active[job.runs[0].name]

    def stop(self) -> None:
        """Ask every run to end after the round in hand, with a checkpoint, and start no more."""
        self.stopping = True  # before the lock, whose holder may be waiting for the study's database
        with self._lock:
            for job in self.active.values():
                for run in job.runs:
                    (run.folder / STOP_FILE).touch()
