"""Many journals shipped to MLflow by one thread, out of the way of whoever runs the training."""

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from r2m.tracking.failures import reason
from r2m.tracking.mlflow_sink import Sink, check_tracking_uri

# A failure that took longer is taken for a server that does not answer, not for one folder's own.
SLOW_S = 1.0


@dataclass
class _Folder:
    sink: Sink
    artifacts: list[Path | str] = field(default_factory=list)  # to be shipped after the rest of the journal
    ending: bool = False
    asked: int = 0  # requests made (add, finish, close)
    done: int = 0  # of them, those before the last shipping that went well
    error: Exception | None = None  # what the last shipping raised


class BackgroundShipper:
    """A thread that ships the journals of the folders given to it every `interval_s` seconds.

    One thread, whatever their number: they share the server's time or the database's lock. A folder that fails is
    tried again in the next round and does not keep the others waiting; but a server that does not answer is
    asked once a round, in turn for each folder. Whatever was not shipped when the process ends stays in the
    journals, for a later Sink.

    Raises UserError for a tracking URI that holds credentials; after that, no method raises what shipping
    raises: `last_error` has it.
    """

    def __init__(self, tracking_uri: str, interval_s: float = 5.0) -> None:
        check_tracking_uri(tracking_uri)
        self._uri, self._interval_s = tracking_uri, interval_s
        self._folders: dict[Path, _Folder] = {}  # in the order of the next round
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._closing, self._deadline = False, math.inf
        self._thread = threading.Thread(target=self._run, name="mlflow-shipper", daemon=True)
        self._thread.start()

    def add(self, run_dir: Path | str) -> None:
        """Ship this folder's journal, now and as it grows. Added again after `finish`, it goes on."""
        self._ask(Path(run_dir), (), False)

    def finish(self, run_dir: Path | str, artifacts: Sequence[Path | str] = ()) -> None:
        """Its journal has ended: ship the rest of it, then the files in `artifacts`, then forget it."""
        self._ask(Path(run_dir), artifacts, True)

    @property
    def last_error(self) -> Exception | None:
        """What shipping raised last, of the folders whose last attempt failed; None where none did."""
        with self._lock:
            return next((f.error for f in reversed(self._folders.values()) if f.error), None)

    @property
    def trouble(self) -> str:
        """Why not everything is shipped, in one line."""
        return "it has not answered yet" if self.last_error is None else reason(self.last_error)

    @property
    def behind(self) -> list[str]:
        """Names of the folders not shipped since they were added, finished or `close` was called, or failing."""
        with self._lock:
            return [run_dir.name for run_dir, f in self._folders.items() if f.error or f.done < f.asked]

    def close(self, timeout_s: float = 60.0) -> bool:
        """Ship what the journals hold now, trying for at most `timeout_s` seconds; whether all of it was."""
        with self._lock:
            for folder in self._folders.values():
                folder.asked += 1
            self._closing, self._deadline = True, time.monotonic() + timeout_s
        self._wake.set()
        self._thread.join(timeout_s)
        return not self.behind

    def _ask(self, run_dir: Path, artifacts: Sequence[Path | str], ending: bool) -> None:
        with self._lock:
            folder = self._folders.setdefault(run_dir, _Folder(Sink(self._uri, run_dir)))
            folder.artifacts += artifacts
            folder.ending, folder.asked = ending, folder.asked + 1
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.clear()
            self._round()
            if self._closing and (not self.behind or time.monotonic() >= self._deadline):
                return
            self._wake.wait(min(self._interval_s, 1.0) if self._closing else self._interval_s)

    def _round(self) -> None:
        with self._lock:
            run_dirs = list(self._folders)
        for run_dir in run_dirs:
            began = time.monotonic()
            if began >= self._deadline:
                return
            error = self._ship(run_dir)
            with self._lock:
                if run_dir in self._folders:
                    self._folders[run_dir] = self._folders.pop(run_dir)  # last in the next round
            if error and time.monotonic() - began >= SLOW_S:
                return

    def _ship(self, run_dir: Path) -> Exception | None:
        with self._lock:
            folder = self._folders[run_dir]
            asked, artifacts = folder.asked, tuple(folder.artifacts)
        try:
            folder.sink.ship(artifacts)
        except Exception as error:  # MLflow's, the network's, the database's: training must not see it
            folder.error = error
            return error
        with self._lock:
            folder.error, folder.done = None, asked
            del folder.artifacts[: len(artifacts)]
            if folder.ending and asked == folder.asked:
                del self._folders[run_dir]
        return None
