"""Runs by name, by their sweep's name, or by an MLflow filter: their journals."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from r2m.config.uris import sqlite_path
from r2m.errors import UserError
from r2m.runs.folder import JOURNAL
from r2m.runs.journal import JournalView, find
from r2m.tracking.mlflow_sink import CLIENT_ENVIRONMENT, check_uri


def sweep_runs(storage: Path | str, sweep: str) -> dict[str, JournalView]:
    """The journals of the sweep's runs, by the run's name."""
    folders = (Path(storage).absolute() / "runs").glob(f"{sweep}-*")
    views = {folder.name: find(folder / JOURNAL) for folder in sorted(folders)}
    return {name: view for name, view in views.items() if view and view.start.get("parent") == sweep}


def journals(storage: Path | str, names: Iterable[str]) -> tuple[dict[str, JournalView], list[str]]:
    """The journals of runs and of sweeps' runs, in the order of the names, and the names that have none.

    Raises UserError for a journal with a broken line.
    """
    views: dict[str, JournalView] = {}
    missing = []
    for name in names:
        # A path: not a name, and nothing outside the storage is read.
        if Path(name).name != name or len(name) > 255:
            missing.append(name)
        elif (Path(storage) / "sweeps" / name / JOURNAL).is_file():
            views |= sweep_runs(storage, name)
        elif view := find(Path(storage) / "runs" / name / JOURNAL):
            views[name] = view
        else:
            missing.append(name)
    return views, missing


def search(tracking_uri: str, filter_string: str) -> list[str]:
    """The names of the runs in MLflow that a filter of its search syntax finds, in all of its experiments, oldest
    first; sweeps' own runs are left out.

    Raises UserError for a store that is not there, or a filter that MLflow refuses.
    """
    check_uri(tracking_uri)
    database = sqlite_path(tracking_uri)
    if database is not None and not database.is_file():  # the client would make one
        raise UserError(f"tracking_uri = {tracking_uri!r}: no such file; r2m sync RUN makes it")
    for name, value in CLIENT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=tracking_uri)
    names, token = [], None
    try:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        while experiments:
            page = client.search_runs(
                experiments, filter_string, order_by=["attributes.start_time ASC"], page_token=token
            )
            tags = [run.data.tags for run in page]
            names += [t["r2m.run_id"] for t in tags if "r2m.run_id" in t and t.get("r2m.arm") != "sweep"]
            token = page.token
            if not token:
                break
    except MlflowException as error:
        raise UserError(f"--filter {filter_string!r}: {' '.join(str(error).split())}") from None
    return list(dict.fromkeys(names))
