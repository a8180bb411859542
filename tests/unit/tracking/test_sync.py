"""`r2m sync` against servers that are down, hung, broken or refuse, an experiment that was deleted, a store that
cannot be written: one line and an exit code, never a trace."""

import logging
import re
import shlex
import socket
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow_store import CONFIG, EXPERIMENT, mlflow_runs, points, started

from r2m.errors import UserError
from r2m.tracking import sync as sync_module
from r2m.tracking.mlflow_sink import Sink, default_tracking_uri
from r2m.tracking.shipper import BackgroundShipper
from r2m.tracking.sync import NotShippedError, sync


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Waits of hundredths of a second, all of them told of."""
    monkeypatch.setattr(sync_module, "FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(sync_module, "SAID_FROM_S", 0.0)
    # As for a user: here MLflow was imported before the sink could set it.
    monkeypatch.setattr(logging.getLogger("mlflow"), "level", logging.CRITICAL)
    logging.getLogger("mlflow").manager._clear_cache()


@contextmanager
def answering(status, body=b"", but=None):
    """A server that answers so, whatever it is asked, but for what `but` names, by a part of the path: its address,
    and the requests that came."""
    asked, default = [], body

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            known = [answer for part, answer in (but or {}).items() if part in self.path]
            body = known[0] if known else default
            self.send_response(200 if known else status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def run_at(storage, uri, name="run", rounds=3):
    with started(storage / "runs" / name, CONFIG | {"run": {"tracking_uri": uri}}) as journal:
        for step in range(rounds):
            journal.round(step, {"reward/proxy": 1.0, "reward/gold": 2.0})
        journal.event("finished")
    return storage / "runs" / name


def lines_of(r2m, storage, *options, name="run"):
    code, out, err = r2m("sync", name, "--storage", str(storage), *options)
    assert "Traceback" not in err
    return code, out.splitlines(), err.splitlines()


def assert_given_up(lines, reason, storage, patience="0.2"):
    *waits, last = lines
    assert waits
    for line in waits:
        assert re.fullmatch(rf"run: 6 points; {reason}; again in [\d.]+ s", line)
    end = rf"nothing has got through for {patience} s; go on: \S*r2m sync run --storage {storage}"
    assert re.fullmatch(rf"error: run: 6 points; {reason}; {end}", last)


def test_a_server_that_answers_500(r2m, tmp_path):
    with answering(500, b"<html>broken") as (uri, asked):
        run_at(tmp_path, uri)
        code, out, err = lines_of(r2m, tmp_path, "--patience", "0.2")
        assert (code, out) == (1, [])
        assert_given_up(err, "the server answers 500", tmp_path)
        assert len(asked) == len(err)  # one request each time: what else there is to ask waits
        waits = [float(re.search(r"again in ([\d.]+) s", line)[1]) for line in err[:-1]]
        assert waits == [0.02 * 2**i for i in range(len(waits))]


def test_a_server_that_is_down(r2m, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        run_at(tmp_path, f"http://127.0.0.1:{free.getsockname()[1]}")
        code, out, err = lines_of(r2m, tmp_path, "--patience", "0.2")
    assert (code, out) == (1, [])
    assert_given_up(err, r"the server is down \(connection refused\)", tmp_path)


def test_a_server_that_hangs(r2m, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        run_at(tmp_path, f"http://127.0.0.1:{mute.getsockname()[1]}")
        code, out, err = lines_of(r2m, tmp_path, "--patience", "1.5")
    assert (code, out) == (1, [])
    assert_given_up(err, "the server does not answer in time", tmp_path, "1.5")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_one_that_refuses_is_not_asked_again(r2m, tmp_path, status):
    with answering(status, b"no entry") as (uri, asked):
        run_at(tmp_path, uri)
        code, out, err = lines_of(r2m, tmp_path)
    assert (code, out, len(asked)) == (1, [], 1)
    (line,) = err
    assert line.startswith(f"error: run: 6 points; the server answers {status}: ")


def test_what_was_found_is_not_asked_for_again(r2m, tmp_path):
    """Else a bad network has to let a whole row of requests through before it counts as one."""
    experiment = b'{"experiment": {"experiment_id": "7", "name": "x", "lifecycle_stage": "active"}}'
    with answering(500, but={"experiments/get-by-name": experiment}) as (uri, asked):
        run_at(tmp_path, uri)
        lines_of(r2m, tmp_path, "--patience", "0.2")
    kinds = [path.partition("?")[0].rsplit("/", 2)[1:] for path in asked]
    assert kinds[0] == ["experiments", "get-by-name"]
    assert len(kinds) > 3
    assert all(kind == ["runs", "search"] for kind in kinds[1:])


def test_no_mlflow_server_at_all(r2m, tmp_path):
    with answering(200, b"<html>Welcome to nginx!") as (uri, _):
        run_at(tmp_path, uri)
        code, _, err = lines_of(r2m, tmp_path, "--patience", "0")
    assert code == 1
    assert "what answers is not an MLflow server" in err[-1]


def test_the_wait_is_bounded(tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(sync_module.time, "sleep", slept.append)
    monkeypatch.setattr(sync_module.time, "monotonic", lambda: sum(slept))
    monkeypatch.setattr(sync_module, "FIRST_WAIT_S", 0.5)
    with answering(503) as (uri, _):
        run_at(tmp_path, uri)
        with pytest.raises(NotShippedError, match="nothing has got through for 300 s"):
            list(sync(tmp_path, "run", say=lambda line: None))
    assert slept == [0.5, 1, 2, 4, 8, 16, *[30] * 8]
    assert sum(slept) <= 300 < sum(slept) + 30


class TestDeleted:
    """The experiment."""

    def test_it_is_one_line_with_the_command_that_restores_it(self, r2m, storage):
        uri, name = default_tracking_uri(storage), "gone"
        run_dir = run_at(storage, None, name, rounds=2)
        Sink(uri, run_dir).ship()
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
        client.delete_experiment(experiment)
        try:
            code, out, err = lines_of(r2m, storage, name=name)
            assert (code, out) == (2, [])
            (line,) = err
            said = f"error: experiment = {EXPERIMENT!r}: it was deleted in MLflow; restore it: "
            assert line.startswith(said)
            command = shlex.split(line.removeprefix(said))
            assert command[0] == "env"
            assert command[1:] == [
                f"MLFLOW_TRACKING_URI={uri}", "mlflow", "experiments", "restore", "--experiment-id", experiment,
            ]  # fmt: skip

            # A run meanwhile ends well, and its driver says the same.
            with started(storage / "runs" / "meanwhile") as journal:
                journal.round(0, {"reward/proxy": 0.5})
                journal.event("finished")
            shipper = BackgroundShipper(uri, interval_s=0.05)
            shipper.finish(storage / "runs" / "meanwhile")
            assert not shipper.close(timeout_s=1.0)
            assert shipper.trouble == line.removeprefix("error: ")
        finally:
            client.restore_experiment(experiment)
        assert lines_of(r2m, storage, name="meanwhile") == (0, ["meanwhile: 1 metric points shipped"], [])
        assert mlflow_runs(uri, "meanwhile")[0].info.status == "FINISHED"

    def test_under_way(self, storage):
        """The sink's run is gone with it: the next shipping says so, and after the restoring it goes on."""
        uri = default_tracking_uri(storage)
        client = MlflowClient(uri)
        with started(storage / "runs" / "cut", experiment="r2m/cut") as journal:
            sink = Sink(uri, storage / "runs" / "cut")
            journal.round(0, {"reward/proxy": 0.0})
            assert sink.ship() == 1
            experiment = client.get_experiment_by_name("r2m/cut").experiment_id
            client.delete_experiment(experiment)
            journal.round(1, {"reward/proxy": 1.0})
            with pytest.raises(Exception, match="active"):
                sink.ship()
            with pytest.raises(UserError, match="it was deleted in MLflow"):
                sink.ship()
            client.restore_experiment(experiment)
            assert sink.ship() == 1
        assert points(uri, "cut", "reward/proxy", "r2m/cut") == [(0, 0.0), (1, 1.0)]


def test_what_a_power_cut_left_does_not_lock_a_run_out(r2m, storage):
    journal = run_at(storage, None, "torn") / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b"\0" * 512 + b"\n")
    assert lines_of(r2m, storage, name="torn") == (0, ["torn: 6 metric points shipped"], [])
    with open(journal, "ab") as file:
        file.write(b'{"time": 1.0, "kind": "event", "name": "resume"}\n')  # then the NULs are inside
    code, out, err = lines_of(r2m, storage, name="torn")
    assert (code, out) == (2, [])
    assert err == [f"error: journal = {str(journal)!r}, line 6: not a record"]


def test_a_storage_that_cannot_be_written(r2m, tmp_path, read_only):
    """Its journals are read all the same; its database cannot take them, and says so at once."""
    disk, freeze = read_only
    run_at(disk, None, "own")
    run_at(disk, f"sqlite:///{tmp_path / 'elsewhere.db'}", "elsewhere")
    freeze()
    code, out, err = lines_of(r2m, disk, name="own")
    assert (code, out) == (2, [])
    assert err == [f"error: tracking_uri = 'sqlite:///{disk}/mlflow.db': {disk} cannot be written"]
    assert lines_of(r2m, disk, name="elsewhere") == (0, ["elsewhere: 6 metric points shipped"], [])


@pytest.mark.parametrize("full", [False, True])
def test_a_database_that_is_broken_or_on_a_full_disk(r2m, tmp_path, full, read_only):
    disk, _ = read_only
    run_at(disk, None)
    if full:
        filler = disk / "filler"
        size = subprocess.check_output(["df", "--output=avail", "-B1", disk], text=True).split()[-1]
        filler.write_bytes(bytes(int(size) - 40960))
    else:
        (disk / "mlflow.db").write_bytes(b"no database" * 1000)
    code, out, err = lines_of(r2m, disk)
    assert (code, out) == (1, [])
    (line,) = err
    assert ("disk full: " if full else "file is not a database") in line
    assert "SQL:" not in line
    assert Path(line.rsplit("--storage ")[1]) == disk
