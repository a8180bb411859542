import json
import math
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from r2m.errors import UserError
from r2m.line_file import is_held
from r2m.runs.journal import Journal, JournalReader, read

START = {
    "run_id": "forum-0",
    "task": "forum",
    "policy": "sft",
    "config": {"reward": {"feedback": True}, "algorithm": {"advantage": "rloo"}},
    "versions": {"r2m": "0.1.0"},
    "git": {"commit": "c0ffee", "dirty": False},
    "config_hash": "abc",
    "data_hash": "def",
    "datasets": [{"name": "posts", "digest": "1234", "source": "forum", "rows": 8, "split": "train"}],
}


def journal_at(path, *steps):
    journal = Journal(path)
    journal.start(**START)
    for step in steps:
        journal.round(step, {"reward/proxy": float(step)})
    return journal


def without_time_and_kind(record):
    return {key: value for key, value in record.items() if key not in ("time", "kind")}


def test_what_is_written_is_read_back(tmp_path):
    before = time.time()
    with journal_at(tmp_path / "new" / "journal.jsonl") as journal:
        journal.round(0, {"reward/proxy": 0.1, "kl/sequence": 2})
        journal.samples(0, [{"prompt": "a\nb", "response": "\ud800 \u2028 é", "reward": 1.5}])
        journal.event("checkpoint", step=0, seconds=0.25)
    view = read(journal.path)
    assert without_time_and_kind(view.start) == START
    assert view.rounds == {0: {"reward/proxy": 0.1, "kl/sequence": 2.0}}
    assert view.samples == {0: [{"prompt": "a\nb", "response": "\ud800 \u2028 é", "reward": 1.5}]}
    assert [without_time_and_kind(e) for e in view.events] == [{"name": "checkpoint", "step": 0, "seconds": 0.25}]
    assert before <= view.start["time"] <= view.events[0]["time"] <= time.time()
    assert (view.run_id, view.arm) == ("forum-0", "R2M")


def test_floats_that_are_not_finite_survive_strict_json(tmp_path):
    with journal_at(tmp_path / "journal.jsonl") as journal:
        journal.round(0, {"a": math.nan, "b": math.inf, "c": -math.inf})
        journal.samples(0, [{"gold": math.nan, "response": "NaN"}])

    def refuse(constant):
        raise AssertionError(f"{constant} is not strict JSON")

    for line in journal.path.read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    view = read(journal.path)
    assert math.isnan(view.rounds[0]["a"])
    assert (view.rounds[0]["b"], view.rounds[0]["c"]) == (math.inf, -math.inf)
    assert math.isnan(view.samples[0][0]["gold"])
    assert view.samples[0][0]["response"] == "NaN"


def test_a_line_torn_at_any_byte_is_ignored_by_readers_and_cut_off_by_the_next_writer(tmp_path):
    with journal_at(tmp_path / "whole.jsonl", 0, 1) as journal:
        pass
    whole = journal.path.read_bytes()
    last = whole[:-1].rfind(b"\n") + 1
    torn = tmp_path / "torn.jsonl"
    for cut in range(last, len(whole)):
        torn.write_bytes(whole[:cut])
        assert list(read(torn).rounds) == [0]
        with Journal(torn) as journal:
            journal.round(2, {})
        assert torn.read_bytes()[:last] == whole[:last]
        assert list(read(torn).rounds) == [0, 2]


NULS = b"\0" * 4096
TORN = {
    "nuls": NULS,
    "nuls and a newline": NULS + b"\n",
    "lines of nuls": NULS + b"\n" + NULS + b"\n",
    "a line whose first block is lost": NULS + b'etrics": {}}\n',
    "a line whose last block is lost": b'{"time": 1.0, "kind": "rou' + NULS + b"\n",
    "a lost line and a part of another": NULS + b'\n{"time": 1.0, "ki',
    "a part of a line": b'{"time": 1.0, "ki',
}


@pytest.mark.parametrize("torn", TORN.values(), ids=TORN)
def test_what_a_power_cut_leaves_at_the_end_is_left_out_and_then_cut_off_and_said(tmp_path, torn):
    with journal_at(tmp_path / "journal.jsonl", 0) as journal:
        journal.event("stopped")
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + torn)
    view = read(journal.path)
    assert (list(view.rounds), view.status, view.nuls) == ([0], "stopped", len(torn) if b"\0" in torn else 0)
    assert journal.path.read_bytes() == whole + torn  # reading writes nothing
    reader = JournalReader(journal.path)
    assert len(reader.new_records()) == 3
    with Journal(journal.path) as journal:
        journal.round(1, {})
    assert journal.path.read_bytes().startswith(whole + b"{")
    assert [r.get("name") or r["step"] for r in reader.new_records()] == ["torn-end", 1]
    view = read(journal.path)
    assert (list(view.rounds), view.status, view.nuls) == ([0, 1], "stopped", 0)
    assert without_time_and_kind(view.events[-1]) == {"name": "torn-end", "bytes": len(torn)}


def test_a_journal_that_is_nothing_but_nuls_has_not_started(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(NULS)
    assert JournalReader(path).new_records() == []
    with journal_at(path, 0):
        pass
    assert list(read(path).rounds) == [0]
    assert b"\0" not in path.read_bytes()


@pytest.mark.parametrize("broken", [NULS, b'{"kind": "rou', b"[1]", b'{"kind": "round"}', b"\xff", b""])
def test_a_broken_line_in_the_middle_is_an_error_that_names_file_and_line(tmp_path, broken):
    with journal_at(tmp_path / "journal.jsonl", 0, 1) as journal:
        pass
    lines = journal.path.read_bytes().split(b"\n")
    lines[1] = broken
    journal.path.write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match=r"journal\.jsonl', line 2: not a record"):
        read(journal.path)


def test_the_first_occurrence_of_a_step_counts_and_steps_are_in_order(tmp_path):
    with journal_at(tmp_path / "journal.jsonl", 0, 2) as journal:
        journal.samples(2, ["first"])
        journal.event("resume", step=1)
        journal.round(1, {"reward/proxy": 1.0})
        journal.round(2, {"reward/proxy": -2.0})
        journal.samples(2, ["second"])
    view = read(journal.path)
    assert view.series("reward/proxy") == ([0, 1, 2], [0.0, 1.0, 2.0])
    assert view.series("reward/gold") == ([], [])
    assert view.samples == {2: ["first"]}


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([], "running"),
        (["checkpoint"], "running"),
        (["finished"], "finished"),
        (["stopped", "checkpoint-refused"], "stopped"),
        (["failed", "resume"], "running"),
        (["checkpoint", "pruned"], "pruned"),
        (["stopped", "resume", "checkpoint", "finished"], "finished"),
    ],
)
def test_status_is_what_the_last_event_that_changes_it_says(tmp_path, events, status):
    with journal_at(tmp_path / "journal.jsonl") as journal:
        for name in events:
            journal.event(name)
    assert read(journal.path).status == status


def test_the_arm_without_feedback_is_the_estimator(tmp_path):
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.start(**START | {"config": START["config"] | {"reward": {"feedback": False}}})
    assert read(journal.path).arm == "RLOO"


def test_a_part_of_a_sweep_says_so_and_a_sweep_is_an_arm_of_none(tmp_path):
    part = {"experiment": "r2m/sweeps", "parent": "lr", "tags": {"trial": "3"}}
    with Journal(tmp_path / "part.jsonl") as journal:
        journal.start(**START | part)
    assert without_time_and_kind(read(journal.path).start) == START | part
    with Journal(tmp_path / "sweep.jsonl") as journal:
        journal.start(**START | {"run_id": "lr", "config": {"recipe": "forum", "seeds": [0]}})
    assert read(journal.path).arm == "sweep"


def test_a_run_starts_once(tmp_path):
    with journal_at(tmp_path / "journal.jsonl") as journal:
        assert journal.started
    with Journal(journal.path) as journal:
        assert journal.started
        with pytest.raises(UserError, match="started already"):
            journal.start(**START)
    assert len(journal.path.read_text().splitlines()) == 1


@pytest.mark.parametrize("run_id", ["", "..", "a/b", "a'b", "a b", "é"])
def test_a_run_id_names_a_folder(tmp_path, run_id):
    with Journal(tmp_path / "journal.jsonl") as journal, pytest.raises(UserError, match="run_id = "):
        journal.start(**START | {"run_id": run_id})


def test_there_is_one_writer(tmp_path):
    with journal_at(tmp_path / "journal.jsonl") as journal:
        assert is_held(journal.path)
        with pytest.raises(UserError, match="another process is writing"):
            Journal(journal.path)
        journal.round(0, {})
    assert not is_held(journal.path)
    with Journal(journal.path) as journal:
        journal.round(1, {})
    assert list(read(journal.path).rounds) == [0, 1]


def test_what_a_killed_writer_wrote_is_there_and_another_goes_on(tmp_path):
    with journal_at(tmp_path / "journal.jsonl") as journal:
        pass
    code = (
        "import itertools, sys; from r2m.runs.journal import Journal; journal = Journal(sys.argv[1])\n"
        "for step in itertools.count(): journal.round(step, {'x': 1.0}); print(step, flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", code, journal.path], stdout=subprocess.PIPE) as writer:
        acknowledged = [int(writer.stdout.readline()) for _ in range(50)]
        writer.send_signal(signal.SIGKILL)
    with Journal(journal.path) as journal:
        journal.event("resume")
    steps = list(read(journal.path).rounds)
    assert steps == list(range(len(steps)))
    assert set(acknowledged) <= set(steps)


@pytest.mark.parametrize("content", [None, b"", b'{"time": 1.0, "kind": "event", "name": "resume"}\n'])
def test_a_journal_without_a_start_is_refused_by_readers(tmp_path, content):
    path = tmp_path / "journal.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="no start record"):
        read(path)


def test_a_reader_gives_each_whole_line_once(tmp_path):
    reader = JournalReader(tmp_path / "journal.jsonl")
    assert reader.new_records() == []
    with journal_at(reader.path, 0) as journal:
        assert [r["kind"] for r in reader.new_records()] == ["start", "round"]
        assert reader.new_records() == []
        with open(journal.path, "ab") as file:
            file.write(b'{"time": 1.0, "kind": "round", "step": 1, ')
            file.flush()
            assert reader.new_records() == []
            file.write(b'"metrics": {}}\n{"ti')
        assert [r["step"] for r in reader.new_records()] == [1]
        with open(journal.path, "ab") as file:
            file.write(b"me\n")
        for _ in range(2):  # an error is not skipped by asking again
            with pytest.raises(UserError, match="line 4"):
                reader.new_records()


def test_a_full_disk_is_an_error_that_names_the_journal(tmp_path):
    with journal_at(tmp_path / "journal.jsonl") as journal:
        with open("/dev/full", "wb") as full:
            os.dup2(full.fileno(), journal._file.fileno())
        with pytest.raises(OSError, match=r"No space left on device.*journal\.jsonl"):
            journal.round(0, {})


def test_a_line_that_the_disk_took_a_part_of_is_taken_back(tmp_path):
    with journal_at(tmp_path / "journal.jsonl", 0) as journal:
        whole = journal.path.read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, limits[1]))
        try:
            with pytest.raises(OSError, match=r"journal\.jsonl"):
                journal.round(1, {"reward/proxy": 1.0})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert journal.path.read_bytes() == whole
        journal.round(2, {})
    assert list(read(journal.path).rounds) == [0, 2]
