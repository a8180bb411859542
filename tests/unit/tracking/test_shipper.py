"""Many journals, one thread: all of each, whatever becomes of the others, and never in the caller's way."""

import queue
import re
import socket
import sqlite3
import threading
from urllib.parse import unquote

import pytest
from mlflow_store import points, started

from r2m.errors import UserError
from r2m.runs.journal import Journal
from r2m.tracking import shipper as shipper_module
from r2m.tracking.mlflow_sink import Sink, default_tracking_uri
from r2m.tracking.shipper import BackgroundShipper


def until(condition):
    """Wait for another thread; the test's own timeout is the limit."""
    while not condition():
        threading.Event().wait(0.02)


def test_one_thread_ships_all_folders_as_they_grow_and_forgets_those_that_end(storage):
    uri, folders = default_tracking_uri(storage), [storage / "runs" / f"many-{i}" for i in range(4)]
    before = threading.active_count()
    shipper = BackgroundShipper(uri, interval_s=0.05)
    journals = [started(folder) for folder in folders]
    for folder in folders:
        shipper.add(folder)
    assert threading.active_count() == before + 1
    for i, journal in enumerate(journals):
        journal.round(0, {"reward/proxy": i / 2})
    until(lambda: not shipper.behind)
    until(lambda: all(points(uri, f"many-{i}", "reward/proxy") == [(0, i / 2)] for i in range(4)))
    for folder, journal in zip(folders[:3], journals[:3], strict=True):
        journal.round(1, {"reward/proxy": 9.0})
        journal.event("pruned")
        journal.close()
        shipper.finish(folder)
    until(lambda: not shipper.behind)
    with journals[0].path.open("a") as file:
        file.write("not a record\n")  # not read any more
    journals[3].round(1, {"reward/proxy": 9.0})
    assert shipper.close(timeout_s=60)
    assert shipper.last_error is None
    assert [points(uri, f"many-{i}", "reward/proxy") for i in range(4)] == [[(0, i / 2), (1, 9.0)] for i in range(4)]


def test_the_artifacts_of_a_folder_come_last_and_it_can_be_taken_up_again(storage):
    uri, folder = default_tracking_uri(storage), storage / "runs" / "again"
    (storage / "one.txt").write_text("1")
    shipper = BackgroundShipper(uri, interval_s=600)  # it wakes when it is asked
    with started(folder) as journal:
        journal.round(0, {"reward/proxy": 0.0})
        journal.event("stopped")
        shipper.finish(folder, [storage / "one.txt"])
        until(lambda: not shipper.behind)
        assert points(uri, "again", "reward/proxy") == [(0, 0.0)]
        assert len(list((storage / "mlartifacts").rglob("one.txt"))) == 1
        journal.event("resume")
        journal.round(1, {"reward/proxy": 1.0})
        shipper.add(folder)
        assert shipper.close(timeout_s=60)
    assert points(uri, "again", "reward/proxy") == [(0, 0.0), (1, 1.0)]


def test_a_folder_that_fails_is_named_and_does_not_keep_the_others(storage):
    uri, runs = default_tracking_uri(storage), storage / "runs"
    with started(runs / "broken") as journal, open(journal.path, "a") as file:
        file.write("{}\n")
    shipper = BackgroundShipper(uri, interval_s=0.05)
    shipper.add(runs / "broken")
    with started(runs / "beside") as journal:
        journal.round(0, {"reward/proxy": 1.0})
        shipper.finish(runs / "beside")
    with started(runs / "no-file"):
        shipper.finish(runs / "no-file", [storage / "not-there.png"])
    until(lambda: sorted(shipper.behind) == ["broken", "no-file"])
    assert not shipper.close(timeout_s=0.3)
    assert sorted(shipper.behind) == ["broken", "no-file"]
    assert re.search(r"line 2|not-there\.png", str(shipper.last_error))
    assert points(uri, "beside", "reward/proxy") == [(0, 1.0)]


def test_a_locked_database_only_delays(storage):
    uri, folder = default_tracking_uri(storage), storage / "runs" / "locked"
    with started(folder) as journal:
        with sqlite3.connect(storage / "mlflow.db") as database:
            database.execute("begin exclusive")
            shipper = BackgroundShipper(uri, interval_s=0.1)
            shipper.add(folder)
            journal.round(0, {"reward/proxy": 1.0})
            assert not shipper.close(timeout_s=0.5)  # it waits for the database still
            assert shipper.behind == ["locked"]
            database.rollback()
        journal.round(1, {"reward/proxy": 2.0})
        Sink(uri, folder).ship()
    assert points(uri, "locked", "reward/proxy") == [(0, 1.0), (1, 2.0)]


def test_a_server_that_refuses_does_not_reach_the_caller(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"  # bound, but nobody listens
        shipper = BackgroundShipper(uri, interval_s=0.05)
        for name in ("one", "other"):
            started(tmp_path / "runs" / name).close()
            shipper.add(tmp_path / "runs" / name)
        with Journal(tmp_path / "runs" / "one" / "journal.jsonl") as journal:
            until(lambda: shipper.last_error)
            journal.round(0, {"reward/proxy": 1.0})
            assert not shipper.close(timeout_s=0.5)
    assert "refused" in str(shipper.last_error)
    assert sorted(shipper.behind) == ["one", "other"]


def test_a_server_that_accepts_and_never_answers_does_not_hold_the_caller(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as mute, started(tmp_path / "runs" / "mute") as journal:
        shipper = BackgroundShipper(f"http://127.0.0.1:{mute.getsockname()[1]}", interval_s=0.05)
        shipper.add(tmp_path / "runs" / "mute")
        connection, _ = mute.accept()
        with connection:
            assert connection.recv(1)  # the request is there, and will stay unanswered
            journal.round(0, {"reward/proxy": 1.0})
            assert not shipper.close(timeout_s=0.2)
            assert shipper.last_error is None  # it waits still
            assert shipper.behind == ["mute"]


def test_a_slow_server_is_asked_once_a_round_for_each_folder_in_turn(tmp_path, monkeypatch):
    monkeypatch.setattr(shipper_module, "SLOW_S", 0.0)  # any failure counts as one that took long
    asked: queue.Queue[str] = queue.Queue()

    def hang_up(server):
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                request = unquote(connection.recv(1 << 16).decode())
                asked.put(request.split("experiment_name=")[1].split()[0])

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=hang_up, args=(server,), daemon=True).start()
        for name in "abc":
            started(tmp_path / "runs" / name, experiment=name).close()
        shipper = BackgroundShipper(f"http://127.0.0.1:{server.getsockname()[1]}", interval_s=600)
        seen = []
        for name in "abcabc":  # each asks for a round
            shipper.add(tmp_path / "runs" / name)
            seen.append(asked.get(timeout=60))
            with pytest.raises(queue.Empty):
                asked.get(timeout=0.3)
        assert sorted(seen[-3:]) == ["a", "b", "c"]  # since all three are known
        assert not shipper.close(timeout_s=0.1)
        server.shutdown(socket.SHUT_RDWR)


def test_credentials_in_the_uri_are_refused_at_once():
    with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD"):
        BackgroundShipper("http://me:hunter2@host:5000")
