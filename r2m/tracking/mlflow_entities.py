"""A journal's records as MLflow's entities: experiment, run, tags, params, data sets, table of samples."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r2m.errors import UserError
from r2m.runs import journal
from r2m.runs.folder import ALARM_PAGE
from r2m.runs.records import Record
from r2m.tracking.dashboards import scope_of_params
from r2m.tracking.pipeline_notes import of_pipeline
from r2m.tracking.views import KIND, Scope, view_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

PARAM_LENGTH, DIGEST_LENGTH = 6000, 36  # MLflow's limits
SAMPLES, RANKING = "samples.json", "ranking.json"  # artifacts that MLflow shows as tables: `table` makes them
CHARTED = {"importance.png": "importance"}  # artifacts that charts show too, by their key
TABLES_TAG = "mlflow.loggedArtifacts"  # names a run's tables
ALARM_TAG = "r2m.alarm"


def find_or_create_experiment(client: MlflowClient, tracking_uri: str, database: Path | None, start: Record) -> str:
    """The id of the run's experiment. Raises UserError for one that was deleted, with the command that restores it:
    MLflow has no other of its name until it is purged."""
    from mlflow.exceptions import MlflowException

    name = start.get("experiment") or f"r2m/{start['task']}/{start['policy']}"
    artifacts = (database.parent / "mlartifacts").as_uri() if database else None  # None: the server's choice
    try:
        tags = view_tags(scope_of(start))
    except UserError:  # r2m dashboards install says it; a run is none the worse for it
        tags = KIND
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return client.create_experiment(name, artifact_location=artifacts, tags=tags)
        except MlflowException:  # another driver was faster
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        address = shlex.quote(f"MLFLOW_TRACKING_URI={tracking_uri}")  # it holds no secret: see check_uri
        raise UserError(
            f"experiment = {name!r}: it was deleted in MLflow; restore it: env {address} "
            f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        )
    return experiment.experiment_id


def scope_of(start: Record) -> Scope:
    """What the views of the run's experiment depend on, as far as it knows: the sweep itself, all of it."""
    if of_pipeline(start):
        return Scope(pipeline=True)
    return scope_of_params(dict(mlflow_params(start["config"])), start.get("experiment") is not None)


def find_or_create(client: MlflowClient, experiment_id: str, run_id: str, time_ms: int) -> Run:
    """The MLflow run of that r2m.run_id. A new one has a name and that tag, and nothing else yet.

    To be called under a lock: MLflow itself would make two of two calls at once.
    """
    runs = client.search_runs([experiment_id], f"tags.`r2m.run_id` = '{run_id}'", max_results=1)
    named = {"mlflow.runName": run_id, "r2m.run_id": run_id}
    return runs[0] if runs else client.create_run(experiment_id, time_ms, named)


def mlflow_tags(start: Record) -> dict[str, str]:
    config = start["config"]
    own = {
        "r2m.config_hash": start["config_hash"],
        "r2m.data_hash": start["data_hash"],
        "r2m.version": start["versions"].get("r2m", "unknown"),
    }
    if "reward" in config:
        own["r2m.feedback"] = str(config["reward"]["feedback"])
    own |= {f"r2m.git_{key}": str(value) for key, value in start["git"].items()}
    return own | journal.tags(start)


def mlflow_params(tree: Record, prefix: str = "") -> list[tuple[str, str]]:
    """Dotted keys and values as text. What is too long for MLflow is cut: config.yaml has it whole.

    A character that MLflow does not take in a key (in a baseline's name, say) becomes "_".
    """
    flat: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat += mlflow_params(value, f"{prefix}{key}.")
        else:
            flat.append((re.sub(r"[^\w./ :-]", "_", f"{prefix}{key}"), str(value)[:PARAM_LENGTH]))
    return flat


def datasets(datasets: list[Record]) -> list[DatasetInput]:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(
            Dataset(
                name=d["name"],
                digest=d["digest"][:DIGEST_LENGTH],
                source_type="r2m",
                source=str(d["source"]),
                profile=json.dumps({"num_rows": d["rows"]}),
            ),
            [InputTag("mlflow.data.context", d["split"])],
        )
        for d in datasets
    ]


def sample_rows(samples: dict[int, list[Record]]) -> list[Record]:
    """A round's samples each, in order. Runs side by side, MLflow shows of a table at first what has the first
    column's value in common, and of that the second column: prompts, and responses with their scores."""
    rows = []
    for step, row in [(step, row) for step, of in sorted(samples.items()) for row in of]:
        scores = [f"{key} {row[key]:.2f}" for key in ("proxy", "vanilla", "gold") if isinstance(row.get(key), float)]
        shown = {"prompt": row.get("prompt"), "response, scored": f"{row.get('response')}\n[{', '.join(scores)}]"}
        rows.append((shown if scores else {}) | row | {"round": step})
    return rows


def ship_alarm(client: MlflowClient, run_id: str, run_dir: Path, events: Sequence[Record]) -> bool:
    """Whether there was an alarm: its round is the run's tag, and its page an artifact."""
    alarm = journal.alarm_of(events)
    if alarm is None:
        return False
    client.set_tag(run_id, ALARM_TAG, str(alarm["step"]))
    if (run_dir / ALARM_PAGE).is_file():
        client.log_artifact(run_id, str(run_dir / ALARM_PAGE))
    return True


def mlflow_table(rows: Sequence[Record]) -> str:
    """The JSON that MLflow shows as a table; a row lacks what others have: null."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    data = [[_finite(row.get(column)) for column in columns] for row in rows]
    return json.dumps({"columns": columns, "data": data})


def log_picture(client: MlflowClient, run_id: str, path: Path) -> None:
    """As MlflowClient.log_image does it for charts, but always under one name: shipped again, it is replaced."""
    from PIL import Image

    stem = f"{CHARTED[path.name]}+step+0+timestamp+0+00000000-0000-4000-8000-000000000000"
    with tempfile.TemporaryDirectory() as folder, Image.open(path) as picture:
        picture.save(Path(folder) / f"{stem}.png")
        picture.thumbnail((1024, 1024))
        picture.save(Path(folder) / f"{stem}+compressed.webp")
        client.log_artifacts(run_id, folder, "images")
    client.set_tag(run_id, "mlflow.loggedImages", True)


def _finite(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def milliseconds(record: Record) -> int:
    return round(record["time"] * 1000)


def check_writable(uri: str, database: Path) -> None:
    """Raises UserError at once where MLflow would try for a minute."""
    folder = next(path for path in database.parents if path.exists())
    for place in (folder, *([database] if database.exists() else [])):
        if not os.access(place, os.W_OK):
            raise UserError(f"tracking_uri = {uri!r}: {place} cannot be written")
