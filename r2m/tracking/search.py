"""Runs by an MLflow filter."""

from r2m.errors import UserError
from r2m.tracking.client import client_of
from r2m.tracking.pages import every_page


def search(tracking_uri: str, filter_string: str) -> list[str]:
    """The names of the runs in MLflow that a filter of its search syntax finds, in all of its experiments, oldest
    first; sweeps' own runs are left out.

    Raises UserError for a store that is not there, or a filter that MLflow refuses.
    """
    with client_of(tracking_uri) as client:
        from mlflow.exceptions import MlflowException

        try:
            known = every_page(lambda token: client.search_experiments(page_token=token))
            ids, order = [experiment.experiment_id for experiment in known], ["attributes.start_time ASC"]
            runs = every_page(lambda token: client.search_runs(ids, filter_string, order_by=order, page_token=token))
        except MlflowException as error:
            raise UserError(f"--filter {filter_string!r}: {' '.join(str(error).split())}") from None
    tags = [run.data.tags for run in runs]
    names = [t["r2m.run_id"] for t in tags if "r2m.run_id" in t and t.get("r2m.arm") != "sweep"]
    return list(dict.fromkeys(names))
