"""`r2m sync`: what the journals of a run, or of a sweep with all of its runs, have and MLflow has not."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from r2m.errors import UserError
from r2m.runs.folder import ANSWER_FILES, JOURNAL, none_of_that_name
from r2m.runs.journal import JournalReader
from r2m.runs.records import Record
from r2m.tracking.client import client_of
from r2m.tracking.failures import is_trackings, may_pass, reason
from r2m.tracking.killed import in_hand, mark_killed
from r2m.tracking.mlflow_sink import Sink, default_tracking_uri

ARTIFACTS = ("curves.png", *ANSWER_FILES)  # those that are there
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
SAID_FROM_S = 1.0  # a shorter wait is not told of: one lost answer is nothing to worry about
SYNC_PATIENCE_S = 300.0


class NotShippedError(RuntimeError):
    """MLflow has not taken everything, and no further request is made. One line."""


def sync(
    storage: Path | str, name: str, patience_s: float = SYNC_PATIENCE_S, say: Callable[[str], None] = print
) -> Iterator[tuple[str, int]]:
    """Ship the sweep `name` and its runs, else the run `name`. Yields the name of each and the number of its metric
    points that are new in MLflow. Then, of all runs of the storage that MLflow has as running, mark those that were
    killed.

    A request that fails is made again after 0.5 s, and after twice as long each time, 30 s at most; `say` is told how
    much has arrived. The next request that goes through sets the wait back to 0.5 s.

    Raises UserError where there is neither, for an experiment that was deleted in MLflow or a database that cannot
    be written, and NotShippedError where nothing has gone through for `patience_s` seconds, or MLflow refuses.
    """
    runs, sweep = Path(storage) / "runs", Path(storage) / "sweeps" / name
    known = Path(name).name == name and len(name) < 256
    if known and (sweep / JOURNAL).is_file():
        starts = {path.parent: _start(path) for path in sorted(runs.glob(f"{name}-*/{JOURNAL}"))}
        starts = {folder: start for folder, start in starts.items() if start.get("parent") == name}
        uris = {folder: _uri(storage, start) for folder, start in starts.items()}
        uris = {sweep: next(iter(uris.values()), _uri(storage, _start(sweep / JOURNAL)))} | uris
    elif known and (runs / name / JOURNAL).is_file():
        uris = {runs / name: _uri(storage, _start(runs / name / JOURNAL))}
    else:
        raise none_of_that_name("NAME", name, storage, runs, sweep.parent)
    for folder, uri in uris.items():
        yield folder.name, _ship(uri, folder, patience_s, say, killed=not in_hand(Path(storage), folder))
    for uri in dict.fromkeys(uris.values()):
        try:
            with client_of(uri) as client:
                mark_killed(storage, uri, client)
        except UserError as error:
            say(f"killed runs are not marked: {error}")


def _start(journal: Path) -> Record:
    """The journal's start record, {} where it has none yet."""
    return next(iter(JournalReader(journal).new_records()), {})


def _uri(storage: Path | str, start: Record) -> str:
    config = start.get("config", {})
    return config.get("run", config).get("tracking_uri") or default_tracking_uri(storage)  # config: a sweep's


def _ship(uri: str, folder: Path, patience_s: float, say: Callable[[str], None], killed: bool) -> int:
    """The number of points that are new."""
    sink = Sink(uri, folder)
    artifacts = [path for name in ARTIFACTS if (path := folder / name).is_file()]
    # since: the first failure after something went through
    answers, since, wait_s = -1, 0.0, FIRST_WAIT_S
    while True:
        try:
            sink.ship(artifacts, killed)
            return sink.points - sink.found
        except UserError:
            raise
        except Exception as error:
            if not is_trackings(error):
                raise
            if sink.answers > answers:
                answers, since, wait_s = sink.answers, time.monotonic(), FIRST_WAIT_S
            far = f"{sink.points}" if sink.arrived is None else f"{sink.arrived} of {sink.points}"
            state = f"{folder.name}: {far} points; {reason(error)}"
            if not may_pass(error):
                raise NotShippedError(state) from error
            if time.monotonic() + wait_s - since > patience_s:
                raise NotShippedError(f"{state}; nothing has got through for {patience_s:g} s") from error
            if wait_s >= SAID_FROM_S:
                say(f"{state}; again in {wait_s:g} s")
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
