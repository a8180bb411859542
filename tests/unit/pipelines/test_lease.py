"""One process a pipeline: real processes that fire at once, are killed, hang and wait."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from r2m.pipelines.lease import BusyError, Holder, _me, _taken, held

QUICK = {"beat_s": 0.05, "stale_s": 1.0}  # where the other stands still
LIVE = QUICK | {"stale_s": 60.0}  # where it lives: however busy the machine is
PROGRAM = """
import sys, time
from r2m.pipelines.lease import BusyError, held
storage, overlap = sys.argv[1:3]
print("ready", flush=True)
sys.stdin.readline()
try:
    with held(storage, "nightly", overlap, lambda line: None, beat_s=0.05, stale_s=60.0) as lease:
        print("holds", flush=True)
        sys.stdin.readline()
        print("lost" if lease.lost else "kept", flush=True)
except BusyError:
    print("busy", flush=True)
"""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A process that wants the lease when it is sent a line, and gives it back at a second one."""
    started = []

    def start(overlap: str = "skip", go: bool = True) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), overlap]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert heard(process) == "ready"
        if go:
            send(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def send(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def folder(storage: Path) -> Path:
    return storage / "pipelines" / ".nightly.lease"


def written(storage: Path, holder: dict[str, Any], number: int = 1) -> Path:
    """A holder's file as a process of that kind has left it."""
    folder(storage).mkdir(parents=True)
    file = folder(storage) / str(number)
    file.write_bytes(json.dumps(holder).encode() + b"\n" + b"beat 7".ljust(24))
    return file


def text(file: Path) -> str:
    """Its line that says who."""
    return file.read_text().partition("\n")[0]


def elsewhere(**fields: Any) -> dict[str, Any]:
    return {**_me().__dict__, "host": "other-machine", "machine": "other-boot", "pid": 4321} | fields


def test_held_and_given_back(tmp_path: Path) -> None:
    for number in ("1", "2"):
        with held(str(tmp_path), "nightly", "skip", pytest.fail) as lease:
            assert [path.name for path in folder(tmp_path).iterdir()] == [number]
            with pytest.raises(BusyError, match=f"^process {os.getpid()} of .*UTC") as caught, \
                    held(str(tmp_path), "nightly", "skip", pytest.fail):  # fmt: skip
                pass
            assert "\n" not in str(caught.value)
            assert abs(caught.value.since.timestamp() - json.loads(text(lease.file))["since"]) < 1e-3
            with held(str(tmp_path), "weekly", "skip", pytest.fail):  # another pipeline
                pass
            assert not lease.lost
    with suppress(ZeroDivisionError), held(str(tmp_path), "nightly", "skip", pytest.fail):
        raise ZeroDivisionError
    with held(str(tmp_path), "nightly", "skip", pytest.fail):
        pass


def test_of_processes_that_fire_at_once_one_holds(tmp_path: Path, start: Start) -> None:
    processes = [start(go=False) for _ in range(4)]
    for process in processes:
        send(process)
    said = [heard(process) for process in processes]
    assert sorted(said) == ["busy", "busy", "busy", "holds"]


@pytest.mark.parametrize("before", ["nothing", "given back", "dead", "stands still"])
def test_of_many_that_fire_at_once_one_holds(tmp_path: Path, before: str) -> None:
    """Many trials: threads, since O_EXCL knows no difference. Each holds until all have decided."""
    trials, stale_s = (4, 1.0) if before == "stands still" else (25, 60.0)
    for trial in range(trials):
        storage = tmp_path / str(trial)
        if before == "given back":
            with held(str(storage), "nightly", "skip", pytest.fail, **QUICK):
                pass
        elif before == "dead":
            written(storage, _me().__dict__ | {"born": "1"})
        elif before == "stands still":
            written(storage, elsewhere())
        decided, gun, outcomes = threading.Semaphore(0), threading.Barrier(6), list[str]()

        def fire(storage: Path, decided: Any, gun: Any, over: Any, outcomes: list[str]) -> None:
            gun.wait()
            try:
                with held(str(storage), "nightly", "skip", lambda _: None, beat_s=0.02, stale_s=stale_s) as lease:
                    outcomes.append("holds")
                    decided.release()
                    over.wait()
                    outcomes.append("lost" if lease.lost else "kept")
            except BusyError:
                outcomes.append("busy")
                decided.release()

        over = threading.Event()
        threads = [threading.Thread(target=fire, args=(storage, decided, gun, over, outcomes)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for _ in threads:
            decided.acquire()
        over.set()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == [*["busy"] * 5, "holds", "kept"]


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_holder_of_this_machine_is_followed_at_once(tmp_path: Path, start: Start, reaped: bool) -> None:
    first = start()
    assert heard(first) == "holds"
    first.send_signal(signal.SIGKILL)
    if reaped:
        first.wait()
    else:  # its parent has not noticed
        while Path(f"/proc/{first.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
    with held(str(tmp_path), "nightly", "skip", pytest.fail, stale_s=1e9) as lease:  # by its process: nobody waits
        assert json.loads(text(lease.file))["pid"] == os.getpid()


def test_a_pid_that_another_process_has_by_now(tmp_path: Path) -> None:
    written(tmp_path, _me().__dict__ | {"born": "1"})  # this process's own, which began later
    with held(str(tmp_path), "nightly", "skip", pytest.fail, stale_s=1e9) as lease:
        assert lease.file.name == "2"


def test_a_pid_of_another_space_says_nothing(tmp_path: Path) -> None:
    """A container on this machine, or this machine before it was started anew: by its heartbeat only."""
    boot = _me().machine.split()[0]
    assert _me().here
    assert _me().alive
    assert not Holder(**_me().__dict__ | {"machine": f"{boot} pid:[1]"}).here
    assert not Holder(**_me().__dict__ | {"machine": ""}).here
    assert not Holder(**_me().__dict__ | {"host": "other-machine"}).here


def test_a_holder_elsewhere_that_stands_still_is_followed(tmp_path: Path) -> None:
    file = written(tmp_path, elsewhere(since=4e9))  # its clock is no concern of ours
    os.utime(file, (4e9, 4e9))
    said: list[str] = []
    with held(str(tmp_path), "nightly", "skip", said.append, **QUICK) as lease:
        assert said == [f"nightly: waiting: {Holder(**elsewhere(since=4e9))}"]
        assert not lease.lost
        assert lease.file.name == "2"


def test_a_holder_elsewhere_that_lives_is_not_followed(tmp_path: Path) -> None:
    since = 1.5e9
    file, over = written(tmp_path, elsewhere(since=since)), threading.Event()

    def beats() -> None:
        beat = 7
        while not over.wait(0.1):
            beat += 1
            with open(file, "r+b") as handle:
                handle.seek(-24, os.SEEK_END)
                handle.write(f"beat {beat}".encode().ljust(24))

    thread = threading.Thread(target=beats)
    thread.start()
    try:
        with pytest.raises(BusyError, match="process 4321 of other-machine"), \
                held(str(tmp_path), "nightly", "skip", lambda _: None, **LIVE):  # fmt: skip
            pass
        said: list[str] = []

        def wait() -> None:
            with held(str(tmp_path), "nightly", "queue", said.append, **(QUICK | {"stale_s": 3.0})):
                said.append("runs")

        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(4)
        assert waiting.is_alive()  # longer than its patience
        assert said == [f"nightly: waiting: {Holder(**elsewhere(since=since))}"]
        over.set()
        thread.join()
        file.write_bytes(file.read_bytes()[:-24] + b"given back".ljust(24))
        waiting.join()
        assert said[1:] == ["runs"]
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("torn", [b"", b'{"host": "other-mach', b"\0" * 300, b"[1]\nbeat 1"])
def test_a_torn_file_holds_as_long_as_one_that_stands_still(tmp_path: Path, torn: bytes) -> None:
    written(tmp_path, elsewhere()).write_bytes(torn)
    said: list[str] = []
    with held(str(tmp_path), "nightly", "skip", said.append, **QUICK) as lease:
        assert said == ["nightly: waiting: a lease that cannot be read"]
        assert not lease.lost


def test_a_holder_that_hung_finds_that_it_has_lost(tmp_path: Path, start: Start) -> None:
    first = start()
    assert heard(first) == "holds"
    first.send_signal(signal.SIGSTOP)
    with pytest.raises(BusyError), held(str(tmp_path), "nightly", "skip", pytest.fail, **QUICK):
        pass  # it is here, and lives: its steps may, too
    host, other = (f'"host": "{name}"'.encode() for name in (os.uname().nodename, "x" * len(os.uname().nodename)))
    with open(folder(tmp_path) / "1", "r+b") as file:  # as if it were of another machine
        line = file.readline().replace(host, other)
        file.seek(0)
        file.write(line)
    with held(str(tmp_path), "nightly", "skip", lambda _: None, **QUICK) as lease:
        before = lease.file.read_bytes().partition(b"\n")[0]
        first.send_signal(signal.SIGCONT)
        send(first)
        assert heard(first) == "lost"
        first.wait()
        assert not lease.lost  # what it wrote at its end went into its own file
        assert [path.name for path in folder(tmp_path).iterdir()] == ["2"]
        assert lease.file.read_bytes().partition(b"\n")[0] == before


def test_who_looked_for_too_long_makes_no_second_holder(tmp_path: Path) -> None:
    """Since it judged the first holder dead, two others have come; its number is free again."""
    first = written(tmp_path, _me().__dict__ | {"born": "1"})
    written_later = folder(tmp_path) / "3"
    written_later.write_bytes(first.read_bytes())
    assert _taken(folder(tmp_path), first, 0.1, 1.0) is None
    assert sorted(path.name for path in folder(tmp_path).iterdir()) == ["1", "3"]


def test_a_storage_that_cannot_be_read_loses_the_lease(tmp_path: Path) -> None:
    with held(str(tmp_path), "nightly", "skip", pytest.fail, beat_s=1e3) as lease:
        folder(tmp_path).rename(tmp_path / "away")
        assert lease.lost
        (tmp_path / "away").rename(folder(tmp_path))
        assert lease.lost  # for good


def test_queue_waits_without_spinning_and_runs(tmp_path: Path, start: Start) -> None:
    first = start()
    assert heard(first) == "holds"
    second = start("queue")
    stat = Path(f"/proc/{second.pid}/stat")

    def ticks() -> int:
        return sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13]))

    time.sleep(0.5)
    before = ticks()
    time.sleep(2)
    assert ticks() - before <= 40  # hundredths of a second; a loop that spins takes 200
    send(first)
    assert heard(first) == "kept"
    assert heard(second) == "holds"
    send(second)
    assert heard(second) == "kept"
