import pytest
from mlflow_store import started

from r2m.tracking.mlflow_sink import Sink, default_tracking_uri


@pytest.fixture(scope="session")
def storage(tmp_path_factory):
    """A folder whose database is made once (seconds); its name has what a URI has to quote."""
    storage = tmp_path_factory.mktemp("storages") / "a%20b #?~'c"
    with started(storage / "runs" / "first"):
        Sink(default_tracking_uri(storage), storage / "runs" / "first").ship()
    return storage
