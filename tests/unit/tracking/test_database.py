"""A process that is killed while MLflow makes its tables leaves no half of them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mlflow import MlflowClient

from r2m.config.uris import sqlite_uri
from r2m.tracking.database import make_database

MAKING = (
    "import sys, pathlib; from r2m.tracking.database import make_database; make_database(pathlib.Path(sys.argv[1]))"
)


def test_killed_in_the_midst_it_is_made_by_the_next(tmp_path: Path) -> None:
    database, aside = tmp_path / "mlflow.db", tmp_path / ".mlflow.db.new" / "mlflow.db"
    process = subprocess.Popen([sys.executable, "-c", MAKING, str(database)], stderr=subprocess.DEVNULL)
    while not (aside.is_file() and aside.stat().st_size > 0):
        assert process.poll() is None
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not database.exists()
    make_database(database)
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    before = database.stat()
    make_database(database)
    assert database.stat() == before
    client = MlflowClient(tracking_uri=sqlite_uri(database))
    assert client.create_experiment("there") in {each.experiment_id for each in client.search_experiments()}
