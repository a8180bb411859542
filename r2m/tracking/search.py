"""Runs by an MLflow filter."""

import os

from r2m.config.uris import sqlite_path
from r2m.errors import UserError
from r2m.tracking.mlflow_sink import CLIENT_ENVIRONMENT, check_tracking_uri


def search(tracking_uri: str, filter_string: str) -> list[str]:
    """The names of the runs in MLflow that a filter of its search syntax finds, in all of its experiments, oldest
    first; sweeps' own runs are left out.

    Raises UserError for a store that is not there, or a filter that MLflow refuses.
    """
    check_tracking_uri(tracking_uri)
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
