"""Running a sweep: Tune in a thread, and in this one progress, MLflow, the sweep's journal, Ctrl-C."""

import math
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from r2m.errors import UserError, reason_of
from r2m.results.answer import Answer
from r2m.results.readings import KL, cost, last, mean
from r2m.runs.folder import JOURNAL, run_folder
from r2m.runs.journal import Journal, JournalReader, read
from r2m.stages.prepare import prepare
from r2m.stages.progress import Progress as Told
from r2m.stages.progress import silent
from r2m.sweeps.ledger import ENDED, Job, Ledger
from r2m.sweeps.notes import write_notes
from r2m.sweeps.objective import value_of
from r2m.sweeps.ranking import command, winner
from r2m.sweeps.room import plan_of
from r2m.sweeps.sweep import Opened, elapsed_s, runs_of, write_answer
from r2m.tracking.shipper import BackgroundShipper
from r2m.training.cluster import connect
from r2m.training.driver import SHIP_TIMEOUT_S, alarm_line, explained, on_signal, round_numbers

POLL_S = 0.5


def run_sweep(
    opened: Opened, address: str | None = None, console: Console | None = None, told: Told = silent
) -> tuple[Answer, bool]:
    """Run a sweep, or go on with it: the answer as it then stands, and whether that is its end (no Ctrl-C came).
    `told`: how many of its runs have ended.

    Raises UserError for one that has finished, is running elsewhere or cannot fit, or whose runs fail by their
    input; else what Ray raises. Whatever ends it, it can be resumed.
    """
    console = console or Console(stderr=True, markup=False)
    path = opened.folder / JOURNAL
    with Journal(path) as journal:
        view = read(path)
        if view.status == "finished":
            raise UserError(f"SWEEP = {opened.name!r}: it has finished; there is nothing to resume")
        if view.events or view.rounds:
            journal.event("resume")
        try:
            return _Session(opened, journal, address, console, told).run()
        except Exception as error:
            cause = explained(error)
            if cause is error:
                raise
            raise cause from error


class _Session:
    def __init__(
        self, opened: Opened, journal: Journal, address: str | None, console: Console, told: Told = silent
    ) -> None:
        sweep = opened.sweep
        self.opened, self.journal, self.console, self.told = opened, journal, console, told
        plan = plan_of(sweep, opened.extra, address)
        plan.check_disk(opened.storage)
        connect(address, math.ceil(plan.concurrent * plan.cpus))
        prepared = prepare(opened.base)
        self.study = opened.study(lambda line: console.print(line, markup=False, highlight=False))
        began, before = time.monotonic(), elapsed_s(journal.path)
        hours = sweep.budget.hours or math.inf
        self.ledger = Ledger(
            sweep, opened.name, opened.storage, self.study, (prepared.policy, prepared.reward), opened.experiment,
            opened.extra, lambda: hours * 3600 - before - (time.monotonic() - began),
        )  # fmt: skip
        self.plan = plan
        views = runs_of(opened)
        self.worker_s = {name: cost(view)[1] for name, view in views.items()}
        self.ended = {name for name, view in views.items() if view.status in ENDED}
        self.runs = len(sweep.seeds) * (len(self.ledger.outside) + sweep.budget.trials)
        self.runs += len(sweep.confirm) * (len(sweep.baselines) + 1)
        self.shipper = BackgroundShipper(opened.tracking_uri)
        self.shipper.add(opened.folder)
        # A driver that was killed may not have shipped the runs that had just ended. The others it has: to ask MLflow
        # for each would take dozens of requests a run.
        records = JournalReader(journal.path).new_records()
        lived = max(r["time"] for r in records if r.get("name") not in ("resume", "torn-end"))
        for name in self.ended:
            if views[name].events[-1]["time"] > lived - SHIP_TIMEOUT_S:
                self.shipper.finish(run_folder(opened.storage, name))
        self.recorded = {int(m["sweep/trial"]) for m in read(journal.path).rounds.values()}

    def run(self) -> tuple[Answer, bool]:
        from r2m.sweeps.tuner import Tuning

        self._record()  # what a killed driver had settled and not written down
        self.told("runs", len(self.ended), self.runs)
        with on_signal(self._ask_to_stop):
            folder, max_failures = self.opened.folder / "ray", self.opened.base.run.max_failures
            tuning = Tuning(self.ledger, folder, self.plan, max_failures)
            self._watch(tuning.thread)
        error = tuning.error and explained(tuning.error)
        artifacts: list[Path] = []
        try:
            if error is not None:
                self.journal.event("failed", reason=reason_of(error))
            else:
                self.journal.event("stopped" if self.ledger.stopping else "finished")
            known, artifacts = write_answer(self.opened, self.study)
            self._write_notes(known)
        except Exception:  # of the same disk, or the same database, as the first
            if error is None:
                raise
        self.shipper.finish(self.opened.folder, artifacts)
        if not self.shipper.close(SHIP_TIMEOUT_S):
            self.console.print(
                f"MLflow did not take everything ({self.shipper.trouble}); the journals have it: "
                f"r2m sync {self.opened.name} --storage {self.opened.storage}",
                markup=False,
                soft_wrap=True,
            )
        if error is not None:
            raise error from tuning.error
        return known, not self.ledger.stopping

    def _watch(self, thread: threading.Thread) -> None:
        """Follow the jobs until Tune has ended."""
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        following: dict[TaskID, Job] = {}
        begun, began = 0, time.time()
        with Progress(*columns, TextColumn("{task.fields[numbers]}"), console=self.console) as progress:
            total = progress.add_task(self.opened.name, total=self.runs, completed=len(self.ended), numbers="")
            running = True
            while running:
                running = thread.is_alive()  # before the last look
                for job in self.ledger.jobs[begun:]:
                    begun += 1
                    bar = progress.add_task(f"  {job.label}", total=_rounds(job), numbers="")
                    following[bar] = job
                    for run in job.runs:
                        self.shipper.add(run.folder)
                for bar, job in list(following.items()):
                    ended = job.runs[0].name not in self.ledger.active
                    for record in self.ledger.observe(job):
                        if record["kind"] == "round":
                            progress.update(bar, advance=1, numbers=round_numbers(record["metrics"]))
                        elif record.get("name") == "resume" and record["time"] >= began:
                            said = f"{job.label}: taken up from round {record['step']}"
                            progress.console.print(said, markup=False, highlight=False)
                        elif record.get("name") == "alarm" and record["time"] >= began:
                            said = alarm_line(job.label, record)
                            progress.console.print(said, markup=False, highlight=False, soft_wrap=True)
                    if ended:
                        progress.remove_task(bar)
                        del following[bar]
                        progress.console.print(self._end(job), markup=False, highlight=False, soft_wrap=True)
                        progress.update(total, completed=len(self.ended))
                if running:
                    time.sleep(POLL_S)

    def _end(self, job: Job) -> str:
        """Write down that a job has ended; the line that says how."""
        views = [read(run.journal) for run in job.runs]
        self.worker_s |= {view.run_id: cost(view)[1] for view in views}
        self.ended |= {view.run_id for view in views if view.status in ENDED}
        self.told("runs", len(self.ended), self.runs)
        for run in job.runs:
            self.shipper.finish(run.folder)
        self._record()
        known, _ = write_answer(self.opened, self.study, self._not_written)
        self._write_notes(known)
        seeds = ", ".join(str(run.config.run.seed) for run in job.runs)
        value = mean(value_of(view, self.opened.sweep.objectives[0]) for view in views)
        kl = mean(last(view, KL) for view in views)
        said = f"{job.label} (seed {seeds}): {views[0].status}, {value:.3f} at KL {kl:.1f}"
        reasons = [v.events[-1].get("reason") for v in views if v.status in ("failed", "pruned")]
        said += "".join(f"; {reason}" for reason in reasons if reason)
        return f"{said}\n  again: {command(self.opened.sweep, job.params, job.runs[0].config.run.seed)}"

    def _write_notes(self, known: Answer) -> None:
        try:
            write_notes(self.opened, self.study, known)
        except OSError as error:
            self._not_written(error)

    def _not_written(self, error: OSError) -> None:
        self.console.print(f"not written: {reason_of(error)}", markup=False, highlight=False, soft_wrap=True)

    def _record(self) -> None:
        """A round of the sweep's journal for every trial that is settled and has none."""
        trials = self.study.get_trials(deepcopy=False)
        for trial in trials:
            if not trial.state.is_finished() or trial.number in self.recorded:
                continue
            views = [view for name in trial.user_attrs.get("runs", ()) if (view := self.ledger.view(name))]
            best = winner(self.opened.sweep, trials)
            self.recorded.add(trial.number)
            metrics = {
                "sweep/trial": trial.number,
                "sweep/value": trial.values[0] if trial.values else math.nan,
                "sweep/best": trials[best].values[0] if best is not None else math.nan,
                "sweep/kl": mean(last(view, KL) for view in views),
                "sweep/worker_hours": sum(self.worker_s.values()) / 3600,
            }
            self.journal.round(len(self.recorded), metrics)

    def _ask_to_stop(self) -> None:
        """The first Ctrl-C ends the runs in hand after their round, with checkpoints; the second aborts."""
        if self.ledger.stopping:
            raise KeyboardInterrupt
        self.ledger.stop()
        self.console.print("stopping after this round, with checkpoints; once more to abort at once")


def _rounds(job: Job) -> int:
    return sum(run.config.algorithm.total_rounds for run in job.runs)
