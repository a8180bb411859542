"""One process at a time for a pipeline, on whatever machine: a lease on the storage.

`<storage>/pipelines/.NAME.lease` says who holds it, with a heartbeat that its holder rewrites. A dead holder does not
keep it: on the same machine its process is looked for; of another one's the heartbeat has to stand still for a while
by the looker's own clock, so that clocks that differ, or jump, do not matter. No lock of the file system is needed:
one that several machines share needn't have any.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from r2m.files import removed, synced

BEAT_S, STALE_S = 5.0, 60.0  # between heartbeats; without one, a holder elsewhere is taken for dead
LOOK_AGAIN_S = 1.0


@dataclass(frozen=True)
class Holder:
    """`born`: when its process started, in the kernel's ticks since the boot `boot`: pids are given again."""

    token: str
    host: str
    boot: str
    pid: int
    born: str
    since: float  # seconds since the epoch, by its own clock
    command: str

    @property
    def here(self) -> bool:
        """Whether it is a process of this machine, since its last start."""
        return self.boot != "" and (self.host, self.boot) == (socket.gethostname(), _boot())

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
    def __init__(self, path: Path, beat_s: float) -> None:
        self._path, self._beat_s = path, beat_s
        self.holder = _me()
        self.lost = False  # somebody has taken it over
        self._beats, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def take(self) -> bool:
        """Whether it was free."""
        aside = self._written()
        try:
            os.link(aside, self._path)  # of several, one succeeds
        except FileExistsError:
            return False
        finally:
            removed(aside)
        self._thread.start()
        return True

    def let_go(self) -> None:
        self._over.set()
        self._thread.join()
        if not self.lost and _is(self._path, self.holder.token):
            removed(self._path)

    def _keep(self) -> None:
        while not self._over.wait(self._beat_s):
            if not _is(self._path, self.holder.token):
                self.lost = True
                return
            self._beats += 1
            with suppress(OSError):  # a storage that is away for a while: the next beat may arrive
                self._written().replace(self._path)

    def _written(self) -> Path:
        aside = self._path.with_name(f"{self._path.name}.{self.holder.token}")
        aside.write_text(json.dumps(asdict(self.holder) | {"beats": self._beats}), encoding="utf-8")
        return synced(aside)


@contextmanager
def held(
    storage: str, name: str, overlap: Literal["skip", "queue"], say: Callable[[str], None] = print, *,
    beat_s: float = BEAT_S, stale_s: float = STALE_S,
) -> Iterator[Lease]:  # fmt: skip
    """The pipeline's lease. Raises BusyError where somebody else holds it and `overlap` is skip; else waits."""
    path = _path(storage, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    lease, watched, told = Lease(path, beat_s), _Watched(path, stale_s), False
    while not lease.take():
        what = watched.look()
        if what == "free":  # since
            continue
        if what == "dead":
            _take_away(path, watched.seen)
        elif what == "alive" and overlap == "skip":
            assert watched.holder is not None
            raise BusyError(watched.holder)
        else:
            if not told:
                say(f"{name}: waiting: {watched.holder or 'a lease that cannot be read'}")
                told = True
            time.sleep(min(LOOK_AGAIN_S, beat_s))
    try:
        yield lease
    finally:
        lease.let_go()


def held_elsewhere(storage: str, name: str) -> bool:
    """Whether a process of another machine has it, as far as can be told without waiting for its heartbeat."""
    try:
        holder = _holder(_path(storage, name).read_bytes())
    except OSError:
        return False
    return holder is not None and not holder.here


def _path(storage: str, name: str) -> Path:
    return Path(storage).absolute() / "pipelines" / f".{name}.lease"


class _Watched:
    """A lease that somebody else has."""

    def __init__(self, path: Path, stale_s: float) -> None:
        self._path, self._stale_s = path, stale_s
        self.seen = b""
        self._since, self._changes = time.monotonic(), -1
        self.holder: Holder | None = None

    def look(self) -> Literal["free", "alive", "dead", "unknown"]:
        """Unknown: not here, and not looked at for long enough."""
        try:
            now = self._path.read_bytes()
        except FileNotFoundError:
            return "free"
        if now != self.seen or self._changes < 0:
            self.seen, self._since, self._changes = now, time.monotonic(), self._changes + 1
            self.holder = _holder(now)
        if self.holder is not None and self.holder.here:
            return "alive" if self.holder.alive else "dead"
        if self._changes > 0 and self.holder is not None:  # its heartbeat was seen
            return "alive"
        return "dead" if time.monotonic() - self._since > self._stale_s else "unknown"


def _take_away(path: Path, seen: bytes) -> None:
    """The lease of a dead holder, if it is still that one: of several that do, one takes it away."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}.stale")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if aside.read_bytes() != seen:  # it was somebody else's by then: put back, unless there is one again
        with suppress(FileExistsError):
            os.link(aside, path)
    removed(aside)


def _holder(data: bytes) -> Holder | None:
    """None for what is torn, or of another version."""
    try:
        tree = json.loads(data)
        tree.pop("beats")
        return Holder(**tree)
    except (ValueError, TypeError, AttributeError, KeyError):
        return None


def _is(path: Path, token: str) -> bool:
    """Whether it has this token; so, too, where it can't be read just now."""
    try:
        holder = _holder(path.read_bytes())
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return holder is not None and holder.token == token


def _me() -> Holder:
    pid = os.getpid()
    return Holder(
        secrets.token_hex(8), socket.gethostname(), _boot(), pid, _born(pid), time.time(),
        " ".join(sys.argv)[:500],
    )  # fmt: skip


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _born(pid: int) -> str:
    """Of a process that is there and no zombie, else ""."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    return ""
