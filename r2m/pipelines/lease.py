"""One process a pipeline, on one machine or on several that share the storage.

`<storage>/pipelines/NAME.lease/` holds a file a holder, numbered: the highest number's has the lease, until its file
says that it was given back. Who wants it makes the next number with O_EXCL, which one of several can, and looks
whether it is the highest still. So taking over never removes a lease that somebody has just taken.

A file is a line of JSON that says who (host, pid, ...) and a line that changes every few seconds, the heartbeat. A
holder of this machine that is dead is seen at once. Any other has lost its lease when its file has not changed for
`patience_s` by the clock of the one who looks, which needn't agree with any other clock. A holder that has stood
still for so long finds `lost` true when it goes on.
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

BEAT_S, PATIENCE_S, LOOK_S = 10.0, 60.0, 1.0  # heartbeat; until a still one has lost its lease; between two looks
GIVEN_BACK = b"given back"


@dataclass(frozen=True)
class Holder:
    """A process. `machine`: the boot and the space of process ids that its pid is one of; `born`: its start in ticks
    of that boot, or "" where the system does not say. `since`: for people, by its own clock."""

    host: str
    machine: str
    pid: int
    born: str
    since: str
    command: str

    @classmethod
    def this(cls) -> Self:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        command = one_line(" ".join(sys.argv))
        return cls(socket.gethostname(), _machine(), os.getpid(), _born(os.getpid()), now, command)

    @property
    def dead(self) -> bool:
        """Certainly: False of a process that cannot be seen from here."""
        here = (self.host, self.machine) == (socket.gethostname(), _machine()) and self.machine != ""
        return here and _born(self.pid) != self.born

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}, since {self.since} ({self.command})"


class Busy(Exception):
    """Another process has the lease. `holder`: None where its file cannot be read."""

    def __init__(self, name: str, holder: Holder | None) -> None:
        super().__init__(f"{name} runs already: {holder or 'by a process that has not said which'}")
        self.holder = holder


class Lease:
    """Given back at the end of its context, by which its heartbeat goes on."""

    def __init__(self, file: Path, handle: int, offset: int, beat_s: float, patience_s: float) -> None:
        self.file = file
        self._handle, self._offset, self._patience_s = handle, offset, patience_s
        self._lost, self._looked = False, time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beats, args=(beat_s,), name="lease", daemon=True)

    @property
    def lost(self) -> bool:
        """Whether somebody else has taken it, or may have while the storage could not be read. Looks every time."""
        with contextlib.suppress(OSError):
            self._lost |= _highest(self.file.parent) != self.file
            self._looked = time.monotonic()
        self._lost |= time.monotonic() - self._looked > self._patience_s
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
    storage: str,
    name: str,
    overlap: Literal["skip", "queue"],
    say: Callable[[str], None],
    beat_s: float = BEAT_S,
    patience_s: float = PATIENCE_S,
    look_s: float = LOOK_S,
) -> Iterator[Lease]:
    """The lease of the pipeline `name`, given back at the end. `queue` waits for it.

    With `skip` raises Busy as soon as the holder is known to live, which takes a heartbeat. Raises OSError.
    """
    folder = Path(storage).absolute() / "pipelines" / f"{name}.lease"
    folder.mkdir(parents=True, exist_ok=True)
    lease = None
    while lease is None:
        after = _free(folder, name, overlap, say, patience_s, look_s)
        lease = _taken(folder, after, beat_s, patience_s)
    with lease:
        yield lease


def holder_of(storage: str, name: str) -> Holder | None:
    """Who has, or had when it died, a pipeline's lease: None where it was given back, or never taken."""
    file = _highest(Path(storage).absolute() / "pipelines" / f"{name}.lease")
    text = None if file is None else _read(file)
    return None if text is None or _is_given_back(text) else _holder(text)


def _free(
    folder: Path, name: str, overlap: str, say: Callable[[str], None], patience_s: float, look_s: float
) -> Path | None:
    """The file after which the next may be made; waits for it. None: the first."""
    watched: tuple[Path, bytes] | None = None
    since, waits = time.monotonic(), False
    while (file := _highest(folder)) is not None:
        text = _read(file)
        if text is None:
            continue  # a later holder has just cleared it away
        holder = _holder(text)
        if _is_given_back(text):
            return file
        if holder is not None and holder.dead:
            say(f"{name}: taken over from a process that has ended: {holder}")
            return file
        if watched != (file, text):
            if watched is not None and overlap == "skip":
                raise Busy(name, holder)
            watched, since = (file, text), time.monotonic()
        elif time.monotonic() - since > patience_s:
            say(f"{name}: taken over: no sign of life for {patience_s:g} s of {holder or file}")
            return file
        if overlap == "queue" and not waits:
            say(f"{name}: waits for {holder or 'a process that has not said which'}")
            waits = True
        time.sleep(look_s)
    return None


def _taken(folder: Path, after: Path | None, beat_s: float, patience_s: float) -> Lease | None:
    """None where somebody else was first."""
    file = folder / str(1 if after is None else int(after.name) + 1)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return None
    try:
        who = json.dumps(asdict(Holder.this())).encode() + b"\n"
        os.pwrite(handle, who + _beat_line(b"beat 0"), 0)
        os.fsync(handle)
        if _highest(folder) == file:
            for earlier in (path for path in folder.iterdir() if path.name.isdecimal()):
                if int(earlier.name) < int(file.name):
                    earlier.unlink(missing_ok=True)
            return Lease(file, handle, len(who), beat_s, patience_s)
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


def _is_given_back(text: bytes) -> bool:
    return text.endswith(b"\n" + _beat_line(GIVEN_BACK))


def _beat_line(words: bytes) -> bytes:
    return words.ljust(24)


def _machine() -> str:
    """"" where the system has no such thing."""
    with contextlib.suppress(OSError):
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _born(pid: int) -> str:
    """"" where there is no such process, or only what its parent has still to take note of."""
    with contextlib.suppress(OSError):
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else fields[18]
    return ""
