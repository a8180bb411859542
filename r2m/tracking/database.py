"""MLflow's SQLite database, made whole."""

from pathlib import Path

from r2m.config.uris import sqlite_uri
from r2m.files import removed


def make_database(database: Path) -> None:
    """MLflow's tables in a file that is there whole or not at all: MLflow makes them by dozens of migrations, and one
    in whose midst a process was killed is in the way of every later one. Nothing where the file is there."""
    if database.is_file() and database.stat().st_size:
        return
    from mlflow import MlflowClient

    aside = removed(database.with_name(f".{database.name}.new"))
    aside.mkdir(parents=True)
    MlflowClient(tracking_uri=sqlite_uri(aside / database.name))
    (aside / database.name).replace(database)
    removed(aside)
