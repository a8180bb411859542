"""Pipelines of steps that take milliseconds, in a storage whose database is there: making one takes seconds."""

from pathlib import Path

import pytest

from r2m.tracking.mlflow_sink import default_tracking_uri
from tests.made_steps import Night, registered


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("database")
    MlflowClient(default_tracking_uri(folder)).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def night(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
    site = tmp_path / "site"
    site.mkdir()
    registered(monkeypatch, site)
    return Night(tmp_path, database)
