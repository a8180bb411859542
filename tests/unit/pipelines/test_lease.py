"""One process at a time for a pipeline, with real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from r2m.pipelines.lease import BusyError, held

HOLD = """
import sys, time
from r2m.pipelines.lease import held
storage, overlap, beat, stale = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
say = lambda line: print("says", line, flush=True)
with held(storage, "night", overlap, say, beat_s=beat, stale_s=stale) as lease:
    print("holds", flush=True)
    while not lease.lost:
        time.sleep(0.01)
    print("lost", flush=True)
"""
ONE_OF = """
import os, sys, time
from r2m.pipelines.lease import BusyError, held
storage, start = sys.argv[1], float(sys.argv[2])
won = 0
for turn in range(20):
    time.sleep(max(0, start + 0.05 * turn - time.time()))
    try:
        with held(storage, "night", "skip", print):
            os.close(os.open(f"{storage}/inside", os.O_CREAT | os.O_EXCL))  # raises where another is in
            won += 1
            time.sleep(0.002)
            os.unlink(f"{storage}/inside")
    except BusyError:
        pass
print(won)
"""


@pytest.fixture
def processes():
    started = []

    def start(code: str, *arguments: object) -> subprocess.Popen:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def lease_file(storage: Path) -> Path:
    return storage / "pipelines" / ".night.lease"


def line(process: subprocess.Popen) -> str:
    return process.stdout.readline().strip()


def elsewhere(storage: Path) -> None:
    """The holder as if it were of another machine."""
    path = lease_file(storage)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "another"}))


def test_of_many_that_fire_at_once_one_is_in(tmp_path, processes):
    start = time.time() + 2
    won = [processes(ONE_OF, tmp_path, start) for _ in range(6)]
    counts = [p.stdout.read() for p in won]
    assert sum(map(int, counts)) >= 20, counts  # each time at least one; a Traceback is no number


def test_a_holder_that_is_alive_is_named(tmp_path, processes):
    first = processes(HOLD, tmp_path, "skip", 5, 60)
    assert line(first) == "holds"
    with pytest.raises(BusyError, match=f"process {first.pid} of .*UTC"), held(str(tmp_path), "night", "skip"):
        pass
    with held(str(tmp_path), "day", "skip"):  # another pipeline is no concern of it
        pass


def test_who_was_killed_does_not_keep_it(tmp_path, processes):
    first = processes(HOLD, tmp_path, "skip", 5, 60)
    assert line(first) == "holds"
    first.kill()
    first.wait()
    with held(str(tmp_path), "night", "skip", stale_s=3600) as lease:  # by its process: nobody waits for an hour
        assert not lease.lost
    assert not lease_file(tmp_path).exists()


def test_a_process_that_was_given_the_same_number_is_another(tmp_path, processes):
    first = processes(HOLD, tmp_path, "skip", 5, 60)
    assert line(first) == "holds"
    first.kill()
    first.wait()
    tree = json.loads(lease_file(tmp_path).read_text())
    lease_file(tmp_path).write_text(json.dumps(tree | {"pid": os.getpid()}))
    with held(str(tmp_path), "night", "skip", stale_s=3600):
        pass


def test_one_elsewhere_is_dead_when_its_heartbeat_stands_still(tmp_path, processes):
    first = processes(HOLD, tmp_path, "skip", 1000, 60)
    assert line(first) == "holds"
    elsewhere(tmp_path)
    first.kill()
    with held(str(tmp_path), "night", "skip", beat_s=0.05, stale_s=0.3):
        pass


def test_one_elsewhere_whose_heart_beats_keeps_it(tmp_path, processes):
    beats = """
import json, sys, time
path = sys.argv[1]
tree = json.loads(open(path).read()) | {"host": "another"}
for beat in range(10**6):
    open(path + ".new", "w").write(json.dumps(tree | {"beats": beat}))
    import os; os.replace(path + ".new", path)
    if beat == 0: print("beats", flush=True)
    time.sleep(0.1)
"""
    first = processes(HOLD, tmp_path, "skip", 1000, 60)
    assert line(first) == "holds"
    other = processes(beats, lease_file(tmp_path))
    assert line(other) == "beats"
    with pytest.raises(BusyError, match="of another"), held(str(tmp_path), "night", "skip", beat_s=0.02, stale_s=30):
        pass


@pytest.mark.parametrize("text", ["", "{", '{"pid": 1}', "null"])
def test_a_torn_one_is_taken_over_after_a_while(tmp_path, text):
    lease_file(tmp_path).parent.mkdir()
    lease_file(tmp_path).write_text(text)
    with held(str(tmp_path), "night", "skip", beat_s=0.02, stale_s=0.1):
        assert json.loads(lease_file(tmp_path).read_text())["pid"] == os.getpid()


def test_who_hung_and_was_given_up_finds_that_it_has_lost(tmp_path, processes):
    first = processes(HOLD, tmp_path, "skip", 0.05, 60)
    assert line(first) == "holds"
    first.send_signal(signal.SIGSTOP)
    elsewhere(tmp_path)
    with held(str(tmp_path), "night", "skip", beat_s=0.02, stale_s=0.2) as lease:
        first.send_signal(signal.SIGCONT)
        assert line(first) == "lost"
        first.wait()
        assert json.loads(lease_file(tmp_path).read_text())["token"] == lease.holder.token
        assert not lease.lost


def test_a_queue_waits_and_then_runs(tmp_path, processes):
    first = processes(HOLD, tmp_path, "queue", 0.05, 60)
    assert line(first) == "holds"
    second = processes(HOLD, tmp_path, "queue", 0.05, 60)
    assert line(second).startswith(f"says night: waiting: process {first.pid}")
    first.kill()
    assert line(second) == "holds"
