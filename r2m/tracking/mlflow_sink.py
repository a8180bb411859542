"""MLflow, fed from the run's journal and never in training's way.

One journal is one MLflow run, found again by our own tag `r2m.run_id`. Whatever happened before (a crash
between two batches, a resume, another process that shipped), `ship` asks MLflow what it has and logs what is
missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from r2m.errors import UserError
from r2m.tracking import mlflow_entities as entities
from r2m.tracking.journal import JournalReader, Record, status

if TYPE_CHECKING:
    from mlflow import MlflowClient

METRICS_PER_BATCH, PARAMS_PER_BATCH = 1000, 100  # MLflow's limits
MLFLOW_STATUS = {"running": "RUNNING", "finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
CLIENT_ENVIRONMENT = {  # where the user's own says nothing else
    # MLflow's client would try 7 times, about 4 minutes; here whoever calls `ship` tries again.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # MLflow reports its use to its makers by default
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # else it tells of every table that it makes
}


def default_tracking_uri(storage: Path | str) -> str:
    """SQLite in the storage folder; its runs' artifacts go to `mlartifacts` beside it."""
    return f"sqlite:///{Path(storage).resolve() / 'mlflow.db'}"


class Sink:
    """Ships the journal of `run_dir` to an MLflow server or database.

    Raises UserError for a tracking URI that holds credentials.
    """

    def __init__(self, tracking_uri: str, run_dir: Path | str) -> None:
        address = urlsplit(tracking_uri)
        if address.username is not None or address.password is not None:
            raise UserError(
                f"tracking_uri = {address.scheme}://***@{address.hostname}: a user or password here would be "
                "logged; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
            )
        for (
            name,
            value,
        ) in CLIENT_ENVIRONMENT.items():  # before anything imports mlflow, which reads them then
            os.environ.setdefault(name, value)
        self._uri, self._run_dir = tracking_uri, Path(run_dir)
        self._reader = JournalReader(self._run_dir / "journal.jsonl")
        self._start: Record = {}
        self._events: list[Record] = []
        self._steps: set[int] = set()  # rounds read: a resumed run replays some
        self._points: list[tuple[str, float, int, int]] = []  # key, value, time in ms, step: not yet shipped
        self._samples: dict[int, list[Record]] = {}
        self._samples_shipped = 0
        self._config: list[Path] = []
        self._client: MlflowClient | None = None  # None: what MLflow has is unknown
        self._mlflow_run = self._mlflow_status = ""

    def ship(self, artifacts: Sequence[Path | str] = ()) -> int:
        """Ship what the journal has and MLflow has not, then the files in `artifacts`.

        Returns the number of metric points logged. What MLflow or the network raises passes through; call
        again to go on from there.
        """
        self._read()
        if not self._start:
            return 0
        with _locked(self._run_dir / ".ship.lock"):
            try:
                return self._ship(artifacts)
            except BaseException:
                self._client = None
                raise

    def _read(self) -> None:
        for record in self._reader.new_records():
            if record["kind"] == "start":
                self._start = record
            elif record["kind"] == "event":
                self._events.append(record)
            elif record["kind"] == "samples":
                self._samples.setdefault(record["step"], record["samples"])
            elif record["kind"] == "round" and record["step"] not in self._steps:
                self._steps.add(record["step"])
                time_ms, step = entities.milliseconds(record), record["step"]
                self._points += [(key, value, time_ms, step) for key, value in record["metrics"].items()]

    def _ship(self, artifacts: Sequence[Path | str]) -> int:
        now = status(self._events)
        news = bool(self._points or artifacts) or len(self._samples) > self._samples_shipped
        if self._client and not news and now == self._mlflow_status:
            return 0
        from mlflow.entities import Metric

        client = self._client = self._client or self._open()
        run_id, shipped = self._mlflow_run, 0
        while self._points:
            batch = self._points[:METRICS_PER_BATCH]
            client.log_batch(run_id, [Metric(*point) for point in batch], synchronous=True)
            del self._points[: len(batch)]
            shipped += len(batch)
        if now != self._mlflow_status:
            if now == "running":
                client.update_run(run_id, MLFLOW_STATUS[now])
            else:
                client.set_terminated(run_id, MLFLOW_STATUS[now], entities.milliseconds(self._events[-1]))
            client.set_tag(run_id, "r2m.status", now)  # last: what is asked for when shipping is taken up
            self._mlflow_status = now
        if len(self._samples) > self._samples_shipped:
            client.log_text(run_id, entities.table(self._samples), entities.SAMPLES)
            client.set_tag(run_id, "mlflow.loggedArtifacts", entities.TABLES)
            self._samples_shipped = len(self._samples)
        for path in [*self._config, *artifacts]:  # after the metrics: artifacts may have a store of their own
            client.log_artifact(run_id, str(path))
        self._config = []
        return shipped

    def _open(self) -> MlflowClient:
        """The client, with the run found or made, all of its start shipped, and known points left out."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        database = _sqlite(self._uri)
        with _locked(database.with_suffix(".lock")) if database else contextlib.nullcontext():
            client = MlflowClient(tracking_uri=self._uri)  # makes the database's tables
            run = entities.find_or_create(client, database, self._start)
        run_id = run.info.run_id
        params = [Param(*p) for p in entities.params(self._start["config"]) if p[0] not in run.data.params]
        for i in range(0, len(params), PARAMS_PER_BATCH):
            client.log_batch(run_id, params=params[i : i + PARAMS_PER_BATCH], synchronous=True)
        if not (run.inputs and run.inputs.dataset_inputs):
            client.log_inputs(run_id, entities.datasets(self._start["datasets"]))
        there = {
            key: {point.step for point in client.get_metric_history(run_id, key)}
            for key in {key for key, *_ in self._points} & run.data.metrics.keys()
        }
        self._points = [point for point in self._points if point[3] not in there.get(point[0], ())]
        self._config = list(self._run_dir.glob("config.yaml"))
        self._mlflow_run, self._mlflow_status = run_id, run.data.tags.get("r2m.status", "")
        return client


class BackgroundShipper:
    """A thread that ships the journal of `run_dir` every `interval_s` seconds and never raises.

    `last_error` is what the last attempt raised, None where it went well. Whatever was not shipped when the
    process ends stays in the journal, for a later Sink.
    """

    def __init__(self, tracking_uri: str, run_dir: Path | str, interval_s: float = 5.0) -> None:
        self.last_error: Exception | None = None
        self._sink = Sink(tracking_uri, run_dir)
        self._interval_s = interval_s
        self._closing, self._deadline = threading.Event(), math.inf
        self._complete = False
        self._artifacts: Sequence[Path | str] = ()
        self._thread = threading.Thread(target=self._run, name="mlflow-shipper", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 60.0, artifacts: Sequence[Path | str] = ()) -> bool:
        """Ship the rest, then the files in `artifacts`, trying for at most `timeout_s` seconds.

        Returns whether everything that the journal held at the call was shipped.
        """
        self._artifacts, self._deadline = artifacts, time.monotonic() + timeout_s
        self._closing.set()
        self._thread.join(timeout_s)
        return self._complete

    def _run(self) -> None:
        while not self._closing.is_set():
            self._ship(())
            self._closing.wait(self._interval_s)
        while time.monotonic() < self._deadline:
            if self._ship(self._artifacts):
                self._complete = True
                return
            time.sleep(min(self._interval_s, 1.0))

    def _ship(self, artifacts: Sequence[Path | str]) -> bool:
        try:
            self._sink.ship(artifacts)
        except Exception as error:  # MLflow's, the network's, the database's: training must not see it
            self.last_error = error
        else:
            self.last_error = None
        return self.last_error is None


def _sqlite(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process of this machine (and one thread of it) at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
