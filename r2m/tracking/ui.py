"""MLflow's pages on a storage folder, on this machine's loopback address only."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

from r2m.errors import UserError, one_line
from r2m.tracking.client import client_of
from r2m.tracking.dashboards import arms_address, experiments, first_view, has_views, install_all, newest
from r2m.tracking.killed import mark_killed
from r2m.tracking.mlflow_sink import CLIENT_ENVIRONMENT, default_tracking_uri

HOST, PORT = "127.0.0.1", 5000


def serve(storage: Path | str, port: int = PORT, experiment: str | None = None) -> int:
    """Serve until SIGINT or SIGTERM, then stop the server with all of its children.

    Prints the address once it answers, and the one that opens on the arms of the experiment, else of the newest one.
    Returns the exit code: 0 where we were asked to stop, else the server's. Raises UserError for a storage folder
    that is not there, an experiment that is not in it, or a port that is taken.
    """
    if not Path(storage).is_dir():
        raise UserError(f"storage = {str(storage)!r}: no such folder")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just let go is free
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise UserError(f"port = {port}: cannot be served ({error}); choose another") from None
    arms = _prepared(storage, experiment)
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    server = start_server(default_tracking_uri(storage), Path(storage).resolve() / "mlartifacts", port)
    try:
        told = False
        while not stop.is_set() and server.poll() is None:
            if not told and answers(port):
                server_address = f"http://{HOST}:{port}"
                print(f"MLflow: {server_address}", flush=True)
                if arms is not None:
                    what = f"{arms[1].capitalize()}:".ljust(7)
                    print(f"{what} {arms_address(server_address, *arms)}", flush=True)
                told = True
            time.sleep(0.2)
    finally:
        stop_server(server)
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0 if stop.is_set() else server.returncode


def arms_of(tracking_uri: str, experiment: str) -> str | None:
    """The address that opens on an experiment's arms: the server's, or that of `serve`; None where it isn't known."""
    try:
        with client_of(tracking_uri) as client:
            (found,) = experiments(client, [experiment])
    except UserError:
        return None
    server = tracking_uri.rstrip("/") if tracking_uri.startswith("http") else f"http://{HOST}:{PORT}"
    return arms_address(server, found.experiment_id, first_view(found.name))


def _prepared(storage: Path | str, experiment: str | None) -> tuple[str, str] | None:
    """The id of the experiment to open and the view to open it on; killed runs are marked. None where there is none
    yet."""
    uri = default_tracking_uri(storage)
    if experiment is None and not (Path(storage) / "mlflow.db").is_file():
        return None
    with client_of(uri) as client:
        if experiment is not None:
            experiments(client, [experiment])  # a name that there is not is the user's mistake, all else is not
    try:
        with client_of(uri) as client:
            mark_killed(storage, uri, client)
            found = newest(client, experiment)
            if found is not None and not has_views(found):
                list(install_all(client, [found.name]))
            return None if found is None else (found.experiment_id, first_view(found.name))
    except UserError as error:  # the pages can be seen all the same
        print(one_line(str(error)), file=sys.stderr)
        return None


def start_server(tracking_uri: str, artifacts: Path, port: int) -> subprocess.Popen[bytes]:
    """MLflow's server as the leader of a process group of its own (it starts workers)."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracking_uri]
    command += ["--artifacts-destination", artifacts.as_uri(), "--host", HOST, "--port", str(port)]
    # Jobs are code that a server runs for whoever reaches it; there are none here.
    environment = CLIENT_ENVIRONMENT | os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    stderr = 2  # also for what it says on stdout, which is ours
    return subprocess.Popen(command, env=environment, stdout=stderr, start_new_session=True)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=1):
        return True
    return False


def stop_server(server: subprocess.Popen[bytes]) -> None:
    """Stop the process group that the server leads: politely, and after 10 seconds for certain."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(10)
