"""What the driver makes of signals and of workers' errors; tests/integration has it run."""

import errno
import os
import signal
import sqlite3
import threading
from collections.abc import Callable

import pytest
from rich.console import Console

from r2m.config import Config
from r2m.errors import UserError
from r2m.runs.folder import STOP_FILE
from r2m.training.driver import _stop_on_signal, alarm_line, explained, round_numbers
from r2m.training.start import StartedRun, new_run

MakeConfig = Callable[..., Config]

QUIET = Console(quiet=True)


class FitError(Exception):
    """As Ray Train's error: the workers' own are in `worker_failures`, each a text that has a traceback."""

    def __init__(self, **worker_failures: Exception) -> None:
        super().__init__("Training failed due to worker errors")
        self.worker_failures = worker_failures


class TestExplained:
    @pytest.mark.parametrize("marker", ["r2m.errors.UserError: ", "UserError: "])
    def test_a_users_mistake_is_its_first_line(self, marker: str) -> None:
        text = f"ray::Worker (pid=1)\n  File ...\n{marker}reward.model = 'x': no\nmore"
        line = explained(FitError(rank_0=RuntimeError(text)))
        assert isinstance(line, UserError)
        assert str(line) == "reward.model = 'x': no"

    def test_a_full_disk_is_one_line(self) -> None:
        cause = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/disk/journal.jsonl")
        line = explained(FitError(rank_0=RuntimeError(f"Traceback:\n  File ...\nOSError: {cause}\n")))
        assert isinstance(line, UserError)
        assert str(line) == f"disk full: OSError: {cause}"
        assert "\n" not in str(line)

    def test_a_database_at_fault_is_one_line_and_not_its_statement(self) -> None:
        """As SQLAlchemy and Optuna raise it: the words are two errors down."""
        try:
            try:
                try:
                    sqlite3.connect("/no/such/folder/study.db")
                except sqlite3.Error as lowest:
                    raise RuntimeError(f"(sqlite3.OperationalError) {lowest}\n[SQL: INSERT\nINTO t]") from lowest
            except RuntimeError as middle:
                raise RuntimeError("An exception is raised during the commit. ") from middle
        except RuntimeError as error:
            line = explained(error)
        assert isinstance(line, UserError)
        assert str(line) == "unable to open database file"

    def test_a_full_disk_under_a_database(self) -> None:
        text = "(sqlite3.OperationalError) database or disk is full\n[SQL: INSERT INTO t]\n[parameters: 1]"
        line = explained(RuntimeError(text))
        assert isinstance(line, UserError)
        assert str(line) == "disk full: (sqlite3.OperationalError) database or disk is full"

    def test_anything_else_is_left_as_it_is(self) -> None:
        error = FitError(rank_0=RuntimeError("CUDA error"))
        assert explained(error) is error


@pytest.fixture
def runs(make_config: MakeConfig) -> list[StartedRun]:
    return [new_run(make_config(), name) for name in ("a", "b")]


def stop_files(runs: list[StartedRun]) -> list[bool]:
    return [(run.folder / STOP_FILE).exists() for run in runs]


class TestStopOnSignal:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_the_first_asks_all_runs_and_the_second_aborts(self, runs: list[StartedRun], number: int) -> None:
        before = signal.getsignal(number)
        with _stop_on_signal(runs, QUIET):
            os.kill(os.getpid(), number)
            assert stop_files(runs) == [True, True]
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
        assert signal.getsignal(number) is before

    def test_no_signal_no_stop(self, runs: list[StartedRun]) -> None:
        with _stop_on_signal(runs, QUIET):
            pass
        assert stop_files(runs) == [False, False]

    def test_in_another_thread_signals_are_the_main_threads(self, runs: list[StartedRun]) -> None:
        seen: list[Callable | int | None] = []

        def inside() -> None:
            with _stop_on_signal(runs, QUIET):
                seen.append(signal.getsignal(signal.SIGINT))

        before = signal.getsignal(signal.SIGINT)
        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        assert seen == [before]


def test_what_is_said_of_an_alarm() -> None:
    alarm = {"step": 30, "began": 20, "checkpoint": 20, "reason": "judged 0.2 lower than in round 20", "signals": {}}
    assert alarm_line("a", alarm) == (
        "a: ALARM in round 30: judged 0.2 lower than in round 20; the last checkpoint before: step-000020; "
        "texts: alarm.html in its folder"
    )
    assert "before: none was kept;" in alarm_line("a", alarm | {"checkpoint": None})


def test_numbers_beside_the_bar() -> None:
    metrics = {"reward/proxy": 0.123, "kl/sequence": 4.0, "train/lr": 1.0}
    assert round_numbers(metrics) == "reward 0.12  KL 4.00"
    assert round_numbers(metrics | {"reward/gold": -1.0}) == "reward 0.12  gold -1.00  KL 4.00"
