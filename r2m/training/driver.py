"""Runs on Ray Train, watched from here: progress, MLflow, Ctrl-C.

Training goes on in Ray's workers, which report by the journal alone. This process follows the journal: nothing that
it does, shipping to MLflow least of all, can slow a worker down.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from r2m.errors import UserError, of_database, reason_of
from r2m.line_file import holding
from r2m.runs.folder import ALARM_PAGE, DRIVER, STOP_FILE
from r2m.runs.journal import Journal, JournalReader, JournalView, read
from r2m.runs.records import Record
from r2m.tracking.shipper import BackgroundShipper
from r2m.training.cluster import connect
from r2m.training.ray_train import ray_trainer, start_coordinator
from r2m.training.start import StartedRun

SHIP_TIMEOUT_S = 30.0
SHOWN_EVENTS = (
    "torn-end",
    "checkpoint-refused",
    "resume",
    "engine-restarted",
    "judge-failed",
)  # events of a session that the terminal shows


def execute(
    runs: Sequence[StartedRun], address: str | None = None, console: Console | None = None
) -> list[JournalView]:
    """Run them all, side by side as far as the cluster has room, and return their journals.

    Raises UserError where a run fails by its input (a full disk, say), else what the workers raised.
    """
    console = console or Console(stderr=True)
    shippers = {uri: BackgroundShipper(uri) for uri in {run.tracking_uri for run in runs}}
    connect(address, sum(run.config.run.workers for run in runs))
    start_coordinator()
    with ExitStack() as held:
        for run in runs:
            held.enter_context(holding(run.folder / DRIVER))
        fits = [_Fit(run) for run in runs]
        with _stop_on_signal(runs, console):
            _watch(fits, shippers, console)
        _ship_rest(runs, shippers, console)
    for fit in fits:
        if fit.error is not None:
            raise explained(fit.error) from fit.error
    return [read(run.journal) for run in runs]


class _Fit:
    """One run in Ray Train, from a thread of its own: Ray's signal handler stays out of the main thread."""

    def __init__(self, run: StartedRun) -> None:
        self.run = run
        self.error: BaseException | None = None
        self.reader = JournalReader(run.journal)
        self.thread = threading.Thread(target=self._fit, name=f"fit-{run.name}", daemon=True)
        self.thread.start()

    def _fit(self) -> None:
        try:
            ray_trainer(self.run.config, self.run.folder, self.run.models).fit()
        except BaseException as error:
            self.error = error
            # Suppressed: a disk with no room for this line either, a worker that still holds the journal.
            with suppress(OSError, UserError), Journal(self.run.journal) as journal:
                journal.event("failed", reason=str(explained(error)))


def _watch(fits: Sequence[_Fit], shippers: Mapping[str, BackgroundShipper], console: Console) -> None:
    """Follow the journals on a progress bar until every run has ended.

    A run is shipped from its first round on: loading MLflow before would take a processor from the worker's start.
    """
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        bars = {
            fit: progress.add_task(fit.run.name, total=fit.run.config.algorithm.total_rounds, numbers="")
            for fit in fits
        }
        running, began = True, time.time()
        while running:
            running = any(fit.thread.is_alive() for fit in fits)  # before the last look at the journals
            for fit, bar in bars.items():
                for record in fit.reader.new_records():
                    if record["kind"] == "round":
                        if progress.tasks[bar].completed == 0:
                            shippers[fit.run.tracking_uri].add(fit.run.folder)
                        progress.update(bar, completed=record["step"], numbers=round_numbers(record["metrics"]))
                    elif record["time"] >= began and record.get("name") == "alarm":
                        progress.console.print(alarm_line(fit.run.name, record), markup=False, soft_wrap=True)
                    elif record["time"] >= began and record.get("name") in SHOWN_EVENTS:
                        said = {k: v for k, v in record.items() if k not in ("time", "kind", "name")}
                        progress.console.print(f"{fit.run.name}: {record['name']} {said}", markup=False)
            if running:
                time.sleep(0.5)


def round_numbers(metrics: dict[str, float]) -> str:
    shown = {"reward": "reward/proxy", "gold": "reward/gold", "KL": "kl/sequence"}
    return "  ".join(f"{label} {metrics[key]:.2f}" for label, key in shown.items() if key in metrics)


def alarm_line(name: str, alarm: Record) -> str:
    """What is said of a journal's alarm; the reasons are those of the page in the run's folder."""
    kept = alarm["checkpoint"]
    before = "none was kept" if kept is None else f"step-{kept:06d}"
    return (
        f"{name}: ALARM in round {alarm['step']}: {alarm['reason']}; the last checkpoint before: {before}; "
        f"texts: {ALARM_PAGE} in its folder"
    )


def _stop_on_signal(runs: Sequence[StartedRun], console: Console) -> AbstractContextManager[None]:
    """The first Ctrl-C asks the workers to stop after the round in hand, with a checkpoint; the second aborts."""

    def ask() -> None:
        if all((run.folder / STOP_FILE).exists() for run in runs):
            raise KeyboardInterrupt
        for run in runs:
            (run.folder / STOP_FILE).touch()
        console.print("stopping after this round, with a checkpoint; once more to abort at once")

    return on_signal(ask)


@contextmanager
def on_signal(ask: Callable[[], None]) -> Iterator[None]:
    """Call `ask` at every Ctrl-C or SIGTERM. Only the main thread gets them: in others this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: ask()) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ship_rest(runs: Sequence[StartedRun], shippers: Mapping[str, BackgroundShipper], console: Console) -> None:
    from r2m.reports.curves import plot
    from r2m.reports.style import groups

    for run in runs:
        view, artifacts = read(run.journal), []
        if view.rounds:
            try:
                plot(groups([(view.arm, view.arm, [view])]), run.folder / "curves.png")
                artifacts = [run.folder / "curves.png"]
            except OSError as error:  # no reason to lose the rest
                console.print(f"{run.name}: no curves.png: {reason_of(error)}", markup=False)
        shippers[run.tracking_uri].finish(run.folder, artifacts)
    storage = runs[0].config.run.storage
    for shipper in shippers.values():
        shipper.close(SHIP_TIMEOUT_S)
        for name in shipper.behind:
            console.print(
                f"{name}: MLflow did not take everything ({shipper.trouble}); the journal has it: "
                f"r2m sync {name} --storage {storage}",
                markup=False,
                soft_wrap=True,
            )


def explained(error: BaseException) -> BaseException:
    """The error itself, or a UserError of one line where a user's mistake, a full disk or a database caused it."""
    for cause in [*getattr(error, "worker_failures", {}).values(), error]:
        text = str(cause)
        for marker in ("r2m.errors.UserError: ", "UserError: "):
            if marker in text:
                return UserError(text.split(marker, 1)[1].splitlines()[0])
        reason = reason_of(cause)
        if reason.startswith("disk full: ") or of_database(cause):
            return UserError(reason)
    return error
