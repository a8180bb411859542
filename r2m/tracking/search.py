"""Runs by an MLflow filter."""

from r2m.errors import UserError
from r2m.tracking.client import client_of


def search(tracking_uri: str, filter_string: str) -> list[str]:
    """The names of the runs in MLflow that a filter of its search syntax finds, in all of its experiments, oldest
    first; sweeps' own runs are left out.

    Raises UserError for a store that is not there, or a filter that MLflow refuses.
    """
    names, token = [], None
    with client_of(tracking_uri) as client:
        from mlflow.exceptions import MlflowException

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
