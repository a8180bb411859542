"""One process a pipeline, on one machine or on several that share the storage.

`<storage>/pipelines/NAME.lease/` holds a file a holder, numbered: the highest number's has the lease, until its file
says that it was given back. Who wants it makes the next number with O_EXCL, which one of several can, and looks
whether it is the highest still. So taking over never removes a lease that somebody has just taken.

A file is a line of JSON that says who (host, pid, ...) and a line that changes every few seconds, the heartbeat,
which is written into the file that was opened, not into whatever has its name by then. Of a holder on this machine
its process is looked for. Any other has lost its lease when its file has not changed for `stale_s` by the clock of
the one who looks, so clocks that differ, or jump, do not matter; it finds `lost` true when it goes on. No lock of the
file system is needed: one that several machines share needn't have any.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from r2m.errors import one_line

BEAT_S, STALE_S = 5.0, 60.0  # between heartbeats; without one, a holder elsewhere is taken for dead
LOOK_AGAIN_S = 1.0
GIVEN_BACK = b"given back"


@dataclass(frozen=True)
class Holder:
    """`machine`: the boot, and the space of process ids (a container has its own), that `pid` is of; `born`: when its
    process started, in the kernel's ticks since that boot: pids are given again."""

    host: str
    machine: str
    pid: int
    born: str
    since: float  # seconds since the epoch, by its own clock
    command: str

    @property
    def here(self) -> bool:
        """Whether its process can be looked for from this one."""
        return self.machine != "" and (self.host, self.machine) == (socket.gethostname(), _machine())

    @property
    def alive(self) -> bool:
        """Of one that is here."""
        return _born(self.pid) == self.born

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC)
        return (
            f"process {self.pid} of {self.host} has been at it since {since:%Y-%m-%d %H:%M:%S} UTC ({self.command})"
        )


class BusyError(Exception):
    """Somebody else holds the lease."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(str(holder))
        self.since = datetime.fromtimestamp(holder.since, UTC)


class Lease:
    """Given back at the end of its context, by which its heartbeat goes on."""

    def __init__(self, file: Path, handle: int, offset: int, beat_s: float, stale_s: float) -> None:
        self.file = file
        self._handle, self._offset, self._stale_s = handle, offset, stale_s
        self._lost, self._looked = False, time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beats, args=(beat_s,), name="lease", daemon=True)

    @property
    def lost(self) -> bool:
        """Whether somebody else has taken it, or may have while the storage could not be read. Looks every time."""
        with contextlib.suppress(OSError):
            self._lost |= _highest(self.file.parent) != self.file
            self._looked = time.monotonic()
        self._lost |= time.monotonic() - self._looked > self._stale_s
        return self._lost

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._write(GIVEN_BACK)
        os.close(self._handle)

    def _beats(self, beat_s: float) -> None:
        beat = 0
        while not self._over.wait(beat_s) and not self.lost:
            beat += 1
            self._write(f"beat {beat}".encode())

    def _write(self, words: bytes) -> None:
        """Into our own file, whoever has the lease by now, and whether the file still has a name."""
        with contextlib.suppress(OSError):
            os.pwrite(self._handle, _beat_line(words), self._offset)


@contextmanager
def held(
    storage: str, name: str, overlap: Literal["skip", "queue"], say: Callable[[str], None] = print, *,
    beat_s: float = BEAT_S, stale_s: float = STALE_S,
) -> Iterator[Lease]:  # fmt: skip
    """The pipeline's lease. Raises BusyError where somebody else holds it and `overlap` is skip; else waits."""
    folder = _folder(storage, name)
    folder.mkdir(parents=True, exist_ok=True)
    lease = None
    while lease is None:
        after = _free(folder, name, overlap, say, beat_s, stale_s)
        lease = _taken(folder, after, beat_s, stale_s)
    with lease:
        yield lease


def held_elsewhere(storage: str, name: str) -> bool:
    """Whether a process of another machine has it, as far as can be told without waiting for its heartbeat."""
    file = _highest(_folder(storage, name))
    text = None if file is None else _read(file)
    if text is None or text.endswith(_beat_line(GIVEN_BACK)):
        return False
    holder = _holder(text)
    return holder is not None and not holder.here


def _folder(storage: str, name: str) -> Path:
    return Path(storage).absolute() / "pipelines" / f".{name}.lease"


def _free(
    folder: Path, name: str, overlap: str, say: Callable[[str], None], beat_s: float, stale_s: float
) -> Path | None:
    """The file after which the next may be made; waits for it. None: the first."""
    watched: tuple[Path, bytes] | None = None
    since, told = time.monotonic(), False
    while (file := _highest(folder)) is not None:
        text = _read(file)
        if text is None:
            continue  # a later holder has just cleared it away
        if text.endswith(b"\n" + _beat_line(GIVEN_BACK)):
            return file
        holder = _holder(text)
        here = holder is not None and holder.here
        changed, first = watched != (file, text), watched is None
        if changed:
            watched, since = (file, text), time.monotonic()
        if holder is not None and here and not holder.alive:
            return file
        if not here and time.monotonic() - since > stale_s:
            return file
        if holder is not None and overlap == "skip" and (here or (changed and not first)):
            raise BusyError(holder)
        if not told and (overlap == "queue" or not here):
            say(f"{name}: waiting: {holder or 'a lease that cannot be read'}")
            told = True
        time.sleep(min(LOOK_AGAIN_S, beat_s))
    return None


def _taken(folder: Path, after: Path | None, beat_s: float, stale_s: float) -> Lease | None:
    """None where somebody else was first."""
    file = folder / str(1 if after is None else int(after.name) + 1)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return None
    try:
        who = json.dumps(asdict(_me())).encode() + b"\n"
        os.pwrite(handle, who + _beat_line(b"beat 0"), 0)
        os.fsync(handle)
        if _highest(folder) == file:
            for earlier in (path for path in folder.iterdir() if path.name.isdecimal()):
                if int(earlier.name) < int(file.name):
                    earlier.unlink(missing_ok=True)
            return Lease(file, handle, len(who), beat_s, stale_s)
    except BaseException:
        file.unlink(missing_ok=True)
        os.close(handle)
        raise
    file.unlink(missing_ok=True)  # we looked for so long that others have come and gone
    os.close(handle)
    return None


def _highest(folder: Path) -> Path | None:
    with contextlib.suppress(FileNotFoundError):
        return max((p for p in folder.iterdir() if p.name.isdecimal()), key=lambda p: int(p.name), default=None)
    return None


def _read(file: Path) -> bytes | None:
    with contextlib.suppress(FileNotFoundError):
        return file.read_bytes()
    return None


def _holder(text: bytes) -> Holder | None:
    """None of a file that is empty or torn."""
    with contextlib.suppress(ValueError, TypeError):
        return Holder(**json.loads(text.partition(b"\n")[0]))
    return None


def _beat_line(words: bytes) -> bytes:
    return words.ljust(24)


def _me() -> Holder:
    pid = os.getpid()
    return Holder(socket.gethostname(), _machine(), pid, _born(pid), time.time(), one_line(" ".join(sys.argv))[:500])


def _machine() -> str:
    """ "" where the system has no such thing."""
    with contextlib.suppress(OSError):
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _born(pid: int) -> str:
    """ "" where there is no such process, or only what its parent has still to take note of."""
    with contextlib.suppress(OSError):
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else fields[18]
    return ""
