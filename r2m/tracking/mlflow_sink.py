"""MLflow, fed from the run's journal and never in training's way.

One journal is one MLflow run, found again by our own tag `r2m.run_id`. Whatever happened before (a crash between
two batches, a resume, another process that shipped), `ship` asks MLflow what it has and logs what is missing. Where
a request fails, the next `ship` goes on from there: what MLflow has confirmed is not sent again, and where the
answer to a batch of points was lost, it first asks which of them arrived. A run whose process was killed outright
is RUNNING in MLflow, as in its journal, until it is resumed, or r2m.tracking.killed finds it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r2m.config import uris
from r2m.errors import UserError
from r2m.files import locked
from r2m.runs.folder import JOURNAL
from r2m.runs.journal import JournalReader, status
from r2m.runs.records import Record
from r2m.tracking import mlflow_entities as entities
from r2m.tracking import notes
from r2m.tracking.database import make_database
from r2m.tracking.failures import may_pass

if TYPE_CHECKING:
    from mlflow import MlflowClient

METRICS_PER_BATCH, PARAMS_PER_BATCH = 1000, 100  # MLflow's limits
MLFLOW_STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED"} | dict.fromkeys(
    ("stopped", "pruned", "skipped", "killed"), "KILLED"  # killed: no event of a journal
)  # fmt: skip
CONFIGS = ("config.yaml", "sweep.yaml", "sweep.py")  # of a run, of a sweep: shipped at the start
CLIENT_ENVIRONMENT = {  # where the user's own says nothing else
    # MLflow's client would try 7 times, about 4 minutes; here whoever calls `ship` tries again.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # MLflow reports its use to its makers by default
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # Else it tells of every table that it makes, and of a failure in SQL statements of many lines.
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
}


def default_tracking_uri(storage: Path | str) -> str:
    """SQLite in the storage folder; its runs' artifacts go to `mlartifacts` beside it."""
    return uris.sqlite_uri(Path(storage).resolve() / "mlflow.db")


def check_tracking_uri(tracking_uri: str) -> None:
    """Raises UserError for an address that MLflow could not use, or one that holds a secret."""
    try:
        uris.check_uri(tracking_uri)
    except ValueError as error:
        raise UserError(f"tracking_uri: {error}") from None


class Sink:
    """Ships the journal of `run_dir`, <storage>/<runs or sweeps>/<name>, to an MLflow server or database.

    Raises UserError for a tracking URI that holds credentials.
    """

    def __init__(self, tracking_uri: str, run_dir: Path | str) -> None:
        check_tracking_uri(tracking_uri)
        for name, value in CLIENT_ENVIRONMENT.items():  # before mlflow is imported, which reads them then
            os.environ.setdefault(name, value)
        self._uri, self._run_dir = tracking_uri, Path(run_dir)
        self._reader = JournalReader(self._run_dir / JOURNAL)
        self._start: Record = {}
        self._events: list[Record] = []
        self._alarm = False  # shipped
        self._steps: set[int] = set()  # rounds read: a resumed run replays some
        self._points: list[tuple[str, float, int, int]] = []  # key, value, ms, step: not known to be there
        self._unknown: set[str] = set()  # keys of which MLflow may have points that are not known
        self.points = 0  # read of the journal
        self.found = 0  # of them, those that were there before this sink logged any
        self._asked = False  # whether `found` is known
        self.answers = 0  # requests that went through
        self._samples: dict[int, list[Record]] = {}
        self._samples_shipped = 0
        self._tables: list[str] = []  # that the run's tag names
        self._config: list[Path] = []
        self._sent: list[Path | str] = []  # of the artifacts of a shipping that has not ended
        # Requests that bring what a run starts with: still to be made.
        self._opening: list[Callable[[], Any]] = []
        self._client: MlflowClient | None = None  # None: what MLflow has is unknown
        self.mlflow_run = self._mlflow_status = ""
        self._known: dict[str, str] = {}  # ids of the experiment and of the run that this one is a part of
        self._description = notes.Description()
        self._last: Record = {}

    def ship(self, artifacts: Sequence[Path | str] = (), killed: bool = False) -> int:
        """Ship what the journal has and MLflow has not, then the files in `artifacts`. `killed`: a run that its
        journal has as running is not.

        Returns the number of metric points logged. What MLflow or the network raises passes through; call
        again to go on from there. Raises UserError for an experiment that was deleted in MLflow, or a database
        that cannot be written.
        """
        self._read()
        if not self._start:
            return 0
        with locked(self._run_dir / ".ship.lock"):
            try:
                return self._ship(artifacts, killed)
            except BaseException as error:
                if not may_pass(error):  # it may have lost the run
                    self._client, self._known = None, {}
                raise

    @property
    def arrived(self) -> int | None:
        """Of `points`, those that MLflow has; None where it has not been asked yet."""
        return self.points - len(self._points) if self._asked else None

    def _read(self) -> None:
        for record in self._reader.new_records():
            self._last = record
            self._description.see(record)
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
                self.points += len(record["metrics"])

    def _ship(self, artifacts: Sequence[Path | str], killed: bool) -> int:
        now = status(self._events)
        if killed and now == "running":
            now = "killed"
        news = bool(self._points or artifacts) or len(self._samples) > self._samples_shipped
        if self._client and not (news or self._opening) and now == self._mlflow_status:
            return 0
        from mlflow.entities import Metric

        client = self._client = self._client or self._open()
        run_id, shipped = self.mlflow_run, 0
        while self._opening:
            self._opening[0]()
            del self._opening[0]
            self.answers += 1
        self._leave_out_what_is_there(client)
        while self._points:
            batch = self._points[:METRICS_PER_BATCH]
            self._unknown = {key for key, *_ in batch}  # until the answer comes
            client.log_batch(run_id, [Metric(*point) for point in batch], synchronous=True)
            self._unknown = set()
            del self._points[: len(batch)]
            shipped += len(batch)
            self.answers += 1
        if not self._alarm and entities.ship_alarm(client, run_id, self._run_dir, self._events):
            self._alarm, self.answers = True, self.answers + 1
        if now != self._mlflow_status:
            if now == "running":
                client.update_run(run_id, MLFLOW_STATUS[now])
            else:
                client.set_terminated(run_id, MLFLOW_STATUS[now], entities.milliseconds(self._last))
            client.set_tag(run_id, "r2m.status", now)  # last: what is asked for when shipping is taken up
            self._mlflow_status = now
            self.answers += 1
        if len(self._samples) > self._samples_shipped:
            client.log_text(run_id, entities.mlflow_table(entities.sample_rows(self._samples)), entities.SAMPLES)
            self._show_as_table(entities.SAMPLES)
            self._samples_shipped = len(self._samples)
            self.answers += 1
        for path in [*self._config, *artifacts]:  # after the metrics: artifacts may have a store of their own
            if path not in self._sent:
                client.log_artifact(run_id, str(path))
                if Path(path).name == entities.RANKING:
                    self._show_as_table(entities.RANKING)
                elif Path(path).name in entities.CHARTED:
                    entities.log_picture(client, run_id, Path(path))
                self._sent.append(path)
                self.answers += 1
        self._config, self._sent = [], []
        self.answers += self._description.write(client, self._run_dir)
        return shipped

    def _leave_out_what_is_there(self, client: MlflowClient) -> None:
        for key in sorted(self._unknown):
            there = {point.step for point in client.get_metric_history(self.mlflow_run, key)}
            self._points = [point for point in self._points if point[0] != key or point[3] not in there]
            self._unknown.remove(key)
            self.answers += 1
        if not self._asked:
            self.found, self._asked = self.points - len(self._points), True

    def _show_as_table(self, name: str) -> None:
        if name not in self._tables and self._client:
            tables = [*self._tables, name]
            entries = json.dumps([{"path": table, "type": "table"} for table in tables])
            self._client.set_tag(self.mlflow_run, entities.TABLES_TAG, entries)
            self._tables = tables

    def _open(self) -> MlflowClient:
        """The client, with the run found or made, all of its start shipped, and known points left out."""
        from mlflow import MlflowClient
        from mlflow.entities import Param, RunTag

        start, database = self._start, (path := uris.sqlite_path(self._uri)) and path.resolve()
        time_ms, tags = entities.milliseconds(start), entities.mlflow_tags(start)
        if database:
            entities.check_writable(self._uri, database)
        # One lock for all of a storage: a part of a sweep may make the sweep's run as well as its own.
        storage = database.with_suffix("") if database else self._run_dir.absolute().parents[1] / "mlflow"
        with locked(storage.with_suffix(".lock")):
            if database:
                make_database(database)
            client = MlflowClient(tracking_uri=self._uri)
            if "experiment" not in self._known:
                experiment = entities.find_or_create_experiment(client, self._uri, database, start)
                self._known["experiment"], self.answers = experiment, self.answers + 1
            experiment = self._known["experiment"]
            if parent := start.get("parent"):
                if "parent" not in self._known:
                    whole = entities.find_or_create(client, experiment, parent, time_ms)
                    self._known["parent"], self.answers = whole.info.run_id, self.answers + 1
                tags["mlflow.parentRunId"] = self._known["parent"]
            run = entities.find_or_create(client, experiment, start["run_id"], time_ms)
        self.answers += 1
        run_id = run.info.run_id
        log = partial(client.log_batch, run_id, synchronous=True)
        missing = [RunTag(*tag) for tag in tags.items() if tag[0] not in run.data.tags]
        params = [Param(*p) for p in entities.mlflow_params(start["config"]) if p[0] not in run.data.params]
        self._opening = [partial(log, tags=missing)] if missing else []
        for i in range(0, len(params), PARAMS_PER_BATCH):
            self._opening.append(partial(log, params=params[i : i + PARAMS_PER_BATCH]))
        if not (run.inputs and run.inputs.dataset_inputs):
            self._opening.append(partial(client.log_inputs, run_id, entities.datasets(start["datasets"])))
        if not start.get("parent"):
            self._opening.append(partial(notes.dress, client, start, run, self._run_dir))
        self._description.of(run, self._known.get("parent", run_id))
        self._unknown = set(run.data.metrics)
        self._tables = [entry["path"] for entry in json.loads(run.data.tags.get(entities.TABLES_TAG, "[]"))]
        self._config, self._sent = [path for name in CONFIGS if (path := self._run_dir / name).is_file()], []
        self.mlflow_run, self._mlflow_status = run_id, run.data.tags.get("r2m.status", "")
        return client
