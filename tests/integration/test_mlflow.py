"""Shipping over HTTP to a real MLflow server: answers that are lost, a server that is killed, pages, `serve`."""

import http.client
import http.server
import math
import os
import random
import select
import socket
import socketserver
import sqlite3
import threading

import plotly.graph_objects as go
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow_pages import CHROMIUM, Browser, children

from r2m.runs.journal import Journal
from r2m.tracking import mlflow_sink
from r2m.tracking import sync as sync_module
from r2m.tracking.mlflow_entities import mlflow_table
from r2m.tracking.mlflow_sink import Sink
from r2m.tracking.shipper import BackgroundShipper
from r2m.tracking.sync import sync
from r2m.tracking.ui import answers

ROUNDS, KEYS = 400, [f"task/m{i}" for i in range(6)]  # three batches


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


class Flaky(http.server.ThreadingHTTPServer):
    """A proxy of `port` where of the requests one in four fails: by turns not passed on, answered with 500 in the
    server's place, or acted on by the server, whose answer is lost. So is the answer to the first batch of points,
    which must not depend on how many requests come before it."""

    def __init__(self, port, seed):
        super().__init__(("127.0.0.1", 0), FlakyRelay)
        self.upstream, self.rng, self.failed, self.passed = port, random.Random(seed), [], 0
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class FlakyRelay(http.server.BaseHTTPRequestHandler):
    def relay(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, how = self.path.split("?")[0], None
        if self.server.rng.random() < 0.25:
            how = ("refused", "500", "lost")[len(self.server.failed) % 3]
        if path.endswith("/runs/log-batch") and ("lost", path) not in self.server.failed:
            how = "lost"
        if how is not None:
            self.server.failed.append((how, path))
        if how in (None, "lost"):
            upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            status, content = answer.status, answer.read()
            upstream.close()
        elif how == "500":
            status, content = 500, b"broken"
        if how in (None, "500"):
            self.server.passed += how is None
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = relay

    def log_message(self, *_):
        pass


CONFIG = {"reward": {"feedback": False}, "algorithm": {"advantage": "rloo", "empty": ""}}


def started(run_dir, rounds, config=CONFIG, **sweep):
    journal = Journal(run_dir / "journal.jsonl")
    hashes = {"config_hash": "abc", "data_hash": "def"}
    journal.start(run_dir.name, "forum", "sft", config, versions={}, git={}, datasets=[], **hashes, **sweep)
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
    with started(tmp_path / "runs" / "plain", range(ROUNDS)) as journal:
        journal.round(ROUNDS, {"reward/gold": math.nan})
        journal.round(ROUNDS + 1, {"reward/gold": math.inf})
        journal.samples(0, [{"prompt": "p", "response": "r"}])
        journal.event("finished")
    shipper = BackgroundShipper(server.uri, interval_s=0.1)
    shipper.finish(tmp_path / "runs" / "plain")
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
    with started(tmp_path / "runs" / "lost", range(ROUNDS)), LosesAnAnswer(server.port, nth=3) as proxy:
        sink = Sink(proxy.uri, tmp_path / "runs" / "lost")
        with pytest.raises(MlflowException, match="Connection aborted"):
            sink.ship()  # the first request brings tags, the second params, the third metrics
        run = mlflow_run(server.uri, "lost")
        history = MlflowClient(server.uri).get_metric_history(run.info.run_id, KEYS[0])
        assert 0 < len(history) < ROUNDS  # the server has the batch
        expected = len(KEYS) * ROUNDS - 1000
        assert sink.ship() == expected
    assert_every_point_once(server.uri, "lost")


def test_with_one_answer_in_four_lost_or_refused_a_run_gets_through_and_ends(server, tmp_path, monkeypatch):
    """936 points of 39 metrics over 24 rounds, some of which are there already."""
    monkeypatch.setattr(sync_module, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(mlflow_sink, "METRICS_PER_BATCH", 100)
    keys, said = [f"task/k{i}" for i in range(39)], []
    with Flaky(server.port, seed=4) as proxy:
        config = CONFIG | {"run": {"tracking_uri": proxy.uri}, "many": {f"k{i}": i for i in range(150)}}
        folder = tmp_path / "runs" / "flaky"
        with started(folder, [], config) as journal:
            for step in range(10):
                journal.round(step, dict.fromkeys(keys, step / 8))
            assert Sink(server.uri, folder).ship() == 390
            for step in range(10, 24):
                journal.round(step, dict.fromkeys(keys, step / 8))
            journal.samples(0, [{"prompt": "p", "response": "r"}])
            journal.event("finished")
        (folder / "config.yaml").write_text("reward: {}\n")
        (folder / "curves.png").write_bytes(b"picture")
        assert list(sync(tmp_path, "flaky", say=said.append)) == [("flaky", 546)]
        assert len(proxy.failed) > 8
        assert {how for how, _ in proxy.failed} == {"refused", "500", "lost"}
        assert ("lost", "/api/2.0/mlflow/runs/log-batch") in proxy.failed
        assert list(sync(tmp_path, "flaky", say=said.append)) == [("flaky", 0)]
    run = mlflow_run(server.uri, "flaky")
    client = MlflowClient(server.uri)
    for key in keys:
        history = client.get_metric_history(run.info.run_id, key)
        assert sorted((p.step, p.value) for p in history) == [(step, step / 8) for step in range(24)]
    assert (run.info.status, run.data.tags["r2m.status"]) == ("FINISHED", "finished")
    assert len(run.data.params) == 3 + 1 + 150
    there = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert there == {"config.yaml", "curves.png", "samples.json"}
    experiment = client.get_experiment_by_name("r2m/forum/sft").experiment_id
    assert len(client.search_runs([experiment], "tags.`r2m.run_id` = 'flaky'")) == 1


def test_a_server_killed_under_way_and_started_again_has_every_point_once(server, tmp_path):
    with started(tmp_path / "runs" / "killed", range(ROUNDS // 2)) as journal:
        shipper = BackgroundShipper(server.uri, interval_s=0.01)
        shipper.add(tmp_path / "runs" / "killed")
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
        arms = server.process.stdout.readline()
        assert arms.startswith(f"Arms:   {server.uri}/#/experiments/")
        assert arms.endswith("viewStateShareKey=arms\n")
        assert Sink(server.uri, tmp_path / "runs" / "killed").ship() > 0
    assert_every_point_once(server.uri, "killed")


def magenta(picture):
    """How many of its pixels have the colour of the report's line."""
    red, green, blue = picture.transpose(2, 0, 1)[:3]
    return ((red > 0.99) & (green < 0.01) & (blue > 0.99)).sum()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
def test_a_browser_shows_the_arms_of_a_sweep_its_ranking_and_its_report(server, tmp_path):
    storage, name = tmp_path / "shown", "lr-sweep"
    folder, shipper = storage / "sweeps" / name, BackgroundShipper(server.uri, interval_s=0.1)
    with started(folder, [], {"sweep": {"recipe": "forum"}}, experiment=name) as journal:
        for arm in ("trial 0", "baseline"):
            run = storage / "runs" / f"{name}-{arm.split()[0]}-s0"
            with started(run, range(3), experiment=name, parent=name, tags={"r2m.trial": arm}):
                shipper.finish(run)
        journal.round(1, {"sweep/value": 0.25})
        journal.event("finished")
    line = go.Scatter(x=[0, 1], y=[0, 1], line={"color": "#ff00ff", "width": 8}, mode="lines")
    go.Figure(line).write_html(folder / "report.html", include_plotlyjs=True)
    assert (folder / "report.html").stat().st_size > 3e6  # plotly.js and all
    (folder / "ranking.json").write_text(mlflow_table([{"arm": "trial 0", "eval/gold": 0.4375}]))
    shipper.finish(folder, [folder / "report.html", folder / "ranking.json"])
    assert shipper.close(timeout_s=60)

    client, browser = MlflowClient(server.uri), Browser(tmp_path)
    experiment = client.get_experiment_by_name(name).experiment_id
    runs = client.search_runs([experiment], order_by=["attributes.run_name"])
    assert [run.info.run_name for run in runs] == [name, f"{name}-baseline-s0", f"{name}-trial-s0"]
    base = f"{server.uri}/#/experiments/{experiment}/runs"

    arms = browser.page(f"{base}?compareRunsMode=CHART&viewStateShareKey=arms")
    assert "Group: trial 0" in arms
    assert "Group: baseline" in arms
    assert f"{name}-trial-s0" in arms
    assert "What trained it" in arms  # the view's first section; what is drawn in it: test_compare_in_mlflow.py

    sweep = f"{base}/{runs[0].info.run_id}"
    overview = browser.page(sweep)
    assert "Child runs" in overview
    assert all(f"runs/{run.info.run_id}" in overview for run in runs[1:])

    assert "0.4375" in browser.page(f"{sweep}/artifacts/ranking.json")

    # The page's own frame of the report may paint after the picture is taken: look again, with a warmer cache.
    assert any(magenta(browser.picture(f"{sweep}/artifacts/report.html")) > 500 for _ in range(6))


def test_serve_stops_with_all_of_its_children(server):
    (leader,) = children(server.process.pid)
    family = [leader, *children(leader)]
    assert len(family) > 1
    assert server.stop() == 0
    assert not answers(server.port)
    assert [pid for pid in family if os.path.exists(f"/proc/{pid}")] == []
    server.start()  # it is the session's
