"""Shipping over HTTP to a real MLflow server: answers that are lost, a server that is killed, `serve`."""

import math
import os
import select
import signal
import socket
import socketserver
import sqlite3
import subprocess
import sys
import threading

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from r2m.tracking.journal import Journal
from r2m.tracking.mlflow_sink import BackgroundShipper, Sink
from r2m.tracking.ui import answers

ROUNDS, KEYS = 400, [f"task/m{i}" for i in range(6)]  # three batches


class Server:
    """`serve` in a process of its own, on one port for its lifetime."""

    def __init__(self, storage):
        self.storage = storage
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self):
        code = "import sys; from r2m.tracking.ui import serve; sys.exit(serve(sys.argv[1], int(sys.argv[2])))"
        command = [sys.executable, "-c", code, self.storage, str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout.readline() == f"MLflow: {self.uri}\n"

    def kill(self):
        """SIGKILL to the server and its workers, in the middle of whatever they do; `serve` then ends."""
        (leader,) = children(self.process.pid)
        os.killpg(leader, signal.SIGKILL)
        return self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait()


class LosesAnAnswer(socketserver.ThreadingTCPServer):
    """A proxy of `port` that closes the connection in place of the answer to the nth log-batch request."""

    daemon_threads = True

    def __init__(self, port, nth):
        super().__init__(("127.0.0.1", 0), Relay)
        self.upstream, self.nth, self.requests, self.lost = ("127.0.0.1", port), nth, 0, False
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Relay(socketserver.BaseRequestHandler):
    def handle(self):
        with socket.create_connection(self.server.upstream) as upstream:
            while True:
                for source in select.select([self.request, upstream], [], [])[0]:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    if source is self.request:
                        self.server.requests += b"/runs/log-batch" in data
                        upstream.sendall(data)
                    elif self.server.requests == self.server.nth and not self.server.lost:
                        self.server.lost = True
                        return
                    else:
                        self.request.sendall(data)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("storage"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def started(run_dir, rounds):
    journal = Journal(run_dir / "journal.jsonl")
    config = {"reward": {"feedback": False}, "algorithm": {"advantage": "rloo", "empty": ""}}
    hashes = {"config_hash": "abc", "data_hash": "def"}
    journal.start(run_dir.name, "forum", "sft", config, versions={}, git={}, datasets=[], **hashes)
    for step in rounds:
        journal.round(step, dict.fromkeys(KEYS, step / 8))
    return journal


def mlflow_run(uri, run_id):
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("r2m/forum/sft")
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`r2m.run_id` = '{run_id}'")
    return run


def assert_every_point_once(uri, run_id):
    run = mlflow_run(uri, run_id)
    for key in KEYS:
        history = MlflowClient(uri).get_metric_history(run.info.run_id, key)
        assert sorted((p.step, p.value) for p in history) == [(step, step / 8) for step in range(ROUNDS)]


def test_a_run_is_shipped_over_http(server, tmp_path):
    with started(tmp_path / "plain", range(ROUNDS)) as journal:
        journal.round(ROUNDS, {"reward/gold": math.nan})
        journal.round(ROUNDS + 1, {"reward/gold": math.inf})
        journal.samples(0, [{"prompt": "p", "response": "r"}])
        journal.event("finished")
    shipper = BackgroundShipper(server.uri, tmp_path / "plain", interval_s=0.1)
    assert shipper.close(timeout_s=60)
    assert_every_point_once(server.uri, "plain")
    run = mlflow_run(server.uri, "plain")
    client = MlflowClient(server.uri)
    nan, inf = client.get_metric_history(run.info.run_id, "reward/gold")
    assert math.isnan(nan.value)
    assert inf.value > 1e300
    assert (run.info.status, run.data.params["algorithm.empty"]) == ("FINISHED", "")
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["samples.json"]
    assert '"p", "r"' in (server.storage / "mlartifacts").rglob("samples.json").__next__().read_text()


def test_points_whose_acknowledgement_is_lost_are_not_logged_twice(server, tmp_path):
    with started(tmp_path / "lost", range(ROUNDS)), LosesAnAnswer(server.port, nth=2) as proxy:
        sink = Sink(proxy.uri, tmp_path / "lost")
        with pytest.raises(MlflowException, match="Connection aborted"):
            sink.ship()  # the first request brings params, the second a batch of metrics
        run = mlflow_run(server.uri, "lost")
        history = MlflowClient(server.uri).get_metric_history(run.info.run_id, KEYS[0])
        assert 0 < len(history) < ROUNDS  # the server has the batch
        expected = len(KEYS) * ROUNDS - 1000
        assert sink.ship() == expected
    assert_every_point_once(server.uri, "lost")


def test_a_server_killed_under_way_and_started_again_has_every_point_once(server, tmp_path):
    with started(tmp_path / "killed", range(ROUNDS // 2)) as journal:
        shipper = BackgroundShipper(server.uri, tmp_path / "killed", interval_s=0.01)
        with sqlite3.connect(server.storage / "mlflow.db") as database:
            before = count = database.execute("select count(*) from metrics").fetchone()
            while count == before:  # a batch is there, and the next under way
                count = database.execute("select count(*) from metrics").fetchone()
        assert server.kill() != 0
        for step in range(ROUNDS // 2, ROUNDS):
            journal.round(step, dict.fromkeys(KEYS, step / 8))
        assert not shipper.close(timeout_s=0.5)
        assert not answers(server.port)
        server.start()
        assert Sink(server.uri, tmp_path / "killed").ship() > 0
    assert_every_point_once(server.uri, "killed")


def test_serve_stops_with_all_of_its_children(server):
    """Last: it stops the module's server."""
    (leader,) = children(server.process.pid)
    family = [leader, *children(leader)]
    assert len(family) > 1
    assert server.stop() == 0
    assert not answers(server.port)
    assert [pid for pid in family if os.path.exists(f"/proc/{pid}")] == []
