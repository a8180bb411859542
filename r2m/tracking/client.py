"""MLflow's client, for what is no run's own shipping."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from r2m.config.uris import sqlite_path
from r2m.errors import UserError
from r2m.tracking.failures import is_trackings, reason
from r2m.tracking.mlflow_sink import CLIENT_ENVIRONMENT, check_tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient


@contextmanager
def client_of(tracking_uri: str) -> Iterator[MlflowClient]:
    """Raises UserError for a store that is not there, and for what its server, its database or the network raise."""
    check_tracking_uri(tracking_uri)
    database = sqlite_path(tracking_uri)
    if database is not None and not database.is_file():  # the client would make one
        raise UserError(f"tracking_uri = {tracking_uri!r}: no such file; r2m sync RUN makes it")
    try:
        yield plain_client(tracking_uri)
    except UserError:
        raise
    except Exception as error:
        if not is_trackings(error):
            raise
        raise UserError(f"tracking_uri = {tracking_uri!r}: {reason(error)}") from error


def plain_client(tracking_uri: str) -> MlflowClient:
    """One whose errors are MLflow's own, for who tries again. Raises UserError for an address that is none."""
    check_tracking_uri(tracking_uri)
    for name, value in CLIENT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri)
