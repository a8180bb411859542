"""The study's database when another process holds it, when it cannot be written, and when its disk is full."""

import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest

from r2m.errors import reason_of
from r2m.sweeps import study as study_module
from r2m.sweeps.sweep import Opened, open_sweep, write_answer

MakeSweep = Callable[..., Opened]
Command = Callable[..., tuple[int, str, str]]
ReadOnly = tuple[Path, Callable[[], None]]


@contextmanager
def held(database: Path) -> Iterator[Callable[[], None]]:
    """The database, held by another process for writing and reading; what is given lets it go."""
    code = (
        "import sqlite3, sys; database = sqlite3.connect(sys.argv[1]); database.execute('begin exclusive')\n"
        "print('held', flush=True); sys.stdin.readline(); database.rollback(); print('free', flush=True)"
    )
    command = [sys.executable, "-c", code, str(database)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"

        def let_go() -> None:
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "free\n"

        yield let_go


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module, "BUSY_S", 0.02)


def test_one_that_another_process_holds_is_waited_for_and_that_is_said_once(make_sweep: MakeSweep) -> None:
    opened = make_sweep()
    said: list[str] = []
    told = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        told.set()

    study = opened.study(say)
    trial = study.ask()
    requests: list[Callable[[], Any]] = [
        study.ask,
        lambda: trial.set_user_attr("runs", ["a"]),
        lambda: study.tell(trial, 0.5),
        lambda: len(study.get_trials()),
    ]
    with ThreadPoolExecutor(1) as pool:
        for i, request in enumerate(requests):
            told.clear()
            study._storage._backend.engine.dispose()  # type: ignore[attr-defined]  # a new connection says it anew
            with held(opened.folder / "study.db") as let_go:
                answer = pool.submit(request)
                assert told.wait(60)
                assert not answer.done()
                assert len(said) == i + 1
                let_go()
                result = answer.result(60)
    assert result == 2
    assert set(said) == {f"waiting for {opened.folder / 'study.db'}, which another process holds"}
    assert study.get_trials()[0].value == 0.5


def test_opening_one_that_is_held_waits_too(make_sweep: MakeSweep) -> None:
    opened = make_sweep()
    opened.study().ask()
    told = threading.Event()
    with ThreadPoolExecutor(1) as pool, held(opened.folder / "study.db") as let_go:
        answer = pool.submit(lambda: len(opened.study(lambda line: told.set()).get_trials()))
        assert told.wait(60)
        let_go()
        assert answer.result(60) == 1


def test_what_is_no_lock_is_not_waited_for(make_sweep: MakeSweep) -> None:
    opened = make_sweep()
    study = opened.study(pytest.fail)
    (opened.folder / "study.db").write_bytes(b"no database" * 1000)
    with pytest.raises(Exception) as error:  # noqa: PT011 (Optuna's or SQLAlchemy's)
        study.ask()
    assert reason_of(error.value) == "file is not a database"


def test_a_full_disk_is_told_in_one_line_and_not_in_statements(
    sweep_file: Callable[..., str], read_only: ReadOnly
) -> None:
    from r2m.sweeps.sweep import new_sweep
    from r2m.training.driver import explained

    disk, _ = read_only
    opened = new_sweep(sweep_file(), "full", str(disk))
    study = opened.study(pytest.fail)
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free))
    with pytest.raises(Exception) as error:  # noqa: PT011
        [study.ask().set_user_attr("reason", "x" * 1000) for _ in range(1000)]
    line = str(explained(error.value))
    assert line.startswith("disk full: ")
    assert "\n" not in line
    assert "INSERT" not in line


class TestReadOnly:
    """`sweep status` writes what it can, and says what it can't."""

    @pytest.fixture
    def frozen(self, sweep_file: Callable[..., str], read_only: ReadOnly) -> Callable[..., Opened]:
        from r2m.sweeps.sweep import new_sweep

        disk, freeze = read_only

        def make(begun: bool) -> Opened:
            opened = new_sweep(sweep_file(), "tiny", str(disk))
            if begun:
                study = opened.study()
                for value in (0.25, 0.75):
                    trial = study.ask()
                    opened.sweep.suggest(trial)
                    study.tell(trial, value)
                study._storage._backend.engine.dispose()  # type: ignore[attr-defined]  # an open file is no frozen one
            freeze()
            return open_sweep(str(disk), "tiny")

        return make

    @pytest.mark.parametrize("begun", [True, False])
    def test_the_status(self, frozen: Callable[..., Opened], r2m: Command, begun: bool) -> None:
        opened = frozen(begun)
        code, out, err = r2m("sweep", "status", "tiny", "--storage", opened.storage)
        assert code == 0
        assert out.startswith("tiny: interrupted\n")
        (line,) = err.splitlines()
        assert line.startswith("not written: [Errno 30] Read-only file system: ")
        known, files = write_answer(opened, opened.study_to_read(), lambda error: None)
        assert files == []
        complete = [arm.values[0] for arm in known.ranking if arm.state == "complete"]
        assert sorted(complete) == ([0.25, 0.75] if begun else [])

    def test_it_is_not_gone_on_with(self, frozen: Callable[..., Opened], r2m: Command) -> None:
        opened = frozen(True)
        code, _, err = r2m("sweep", "--resume", "tiny", "--storage", opened.storage)
        (line,) = err.splitlines()
        assert code == 2
        assert "Read-only file system" in line

    def test_a_broken_study_is_one_line(self, make_sweep: MakeSweep, r2m: Command) -> None:
        opened = make_sweep()
        (opened.folder / "study.db").write_bytes(b"no database" * 1000)
        code, _, err = r2m("sweep", "status", "tiny", "--storage", opened.storage)
        assert (code, err.splitlines()) == (
            2, ["error: SWEEP = 'tiny': its study cannot be read: file is not a database"],
        )  # fmt: skip

    def test_a_study_that_its_driver_was_killed_before_it_made(self, make_sweep: MakeSweep) -> None:
        opened = make_sweep()
        sqlite3.connect(opened.folder / "study.db").close()
        optuna.create_study(storage=opened.database, study_name="other")
        assert opened.study_to_read().get_trials() == []
