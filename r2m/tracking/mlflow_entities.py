"""A journal's records as MLflow's entities: experiment, run, tags, params, data sets, table of samples."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r2m.tracking.journal import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run

PARAM_LENGTH, DIGEST_LENGTH = 6000, 36  # MLflow's limits
SAMPLES = "samples.json"
TABLES = json.dumps([{"path": SAMPLES, "type": "table"}])  # the artifacts that MLflow shows as tables


def find_or_create(client: MlflowClient, database: Path | None, start: Record) -> Run:
    from mlflow.exceptions import MlflowException

    name = f"r2m/{start['task']}/{start['policy']}"
    artifacts = (database.parent / "mlartifacts").as_uri() if database else None  # None: the server's choice
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            experiment = client.get_experiment(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:  # another driver was faster
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    ours = f"tags.`r2m.run_id` = '{start['run_id']}'"
    runs = client.search_runs([experiment.experiment_id], ours, max_results=1)
    return runs[0] if runs else client.create_run(experiment.experiment_id, milliseconds(start), tags(start))


def tags(start: Record) -> dict[str, str]:
    named = {
        "mlflow.runName": start["run_id"],
        "r2m.run_id": start["run_id"],
        "r2m.feedback": str(start["config"]["reward"]["feedback"]),
        "r2m.config_hash": start["config_hash"],
        "r2m.data_hash": start["data_hash"],
        "r2m.version": start["versions"].get("r2m", "unknown"),
    }
    return named | {f"r2m.git_{key}": str(value) for key, value in start["git"].items()}


def params(tree: Record, prefix: str = "") -> list[tuple[str, str]]:
    """Dotted keys and values as text. What is too long for MLflow is cut: config.yaml has it whole."""
    flat: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat += params(value, f"{prefix}{key}.")
        else:
            flat.append((f"{prefix}{key}", str(value)[:PARAM_LENGTH]))
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


def table(samples: dict[int, list[Record]]) -> str:
    """All samples as the JSON that MLflow shows as a table, a row each with its round first."""
    rows = [{"round": step} | row for step in sorted(samples) for row in samples[step]]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    data = [[_finite(row.get(column)) for column in columns] for row in rows]
    return json.dumps({"columns": columns, "data": data})


def _finite(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def milliseconds(record: Record) -> int:
    return round(record["time"] * 1000)
