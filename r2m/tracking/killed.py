"""Runs that MLflow has as running while no process runs them any more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from r2m.line_file import is_held
from r2m.runs.folder import DRIVER, JOURNAL
from r2m.runs.journal import JournalReader
from r2m.tracking.dashboards import experiments
from r2m.tracking.mlflow_sink import Sink
from r2m.tracking.pages import every_page

if TYPE_CHECKING:
    from mlflow import MlflowClient


def mark_killed(storage: Path | str, tracking_uri: str, client: MlflowClient) -> list[str]:
    """Ship what is left of the storage's runs and sweeps that were killed, and have MLflow call them so; their names.
    Whoever goes on with one makes it running again. Raises what Sink.ship raises."""
    ids = [experiment.experiment_id for experiment in experiments(client)]
    running = every_page(lambda token: client.search_runs(ids, "attributes.status = 'RUNNING'", page_token=token))
    killed = []
    for name in filter(None, (run.data.tags.get("r2m.run_id") for run in running)):
        folder = next((f for kind in ("runs", "sweeps", "pipelines") if (f := _folder(storage, kind, name))), None)
        if folder is not None and not in_hand(Path(storage), folder):
            Sink(tracking_uri, folder).ship(killed=True)
            killed.append(name)
    return killed


def _folder(storage: Path | str, kind: str, name: str) -> Path | None:
    folder = Path(storage) / kind / name
    return folder if Path(name).name == name and (folder / JOURNAL).is_file() else None


def in_hand(storage: Path, folder: Path) -> bool:
    """Whether a worker of the run in this folder, its driver or that of what it is a part of is there."""
    parent = next(iter(JournalReader(folder / JOURNAL).new_records()), {}).get("parent")
    wholes = [storage / kind / parent / JOURNAL for kind in ("sweeps", "pipelines")] if parent else []
    places = [folder / JOURNAL, folder / DRIVER, *wholes]
    return any(place.is_file() and is_held(place) for place in places)
