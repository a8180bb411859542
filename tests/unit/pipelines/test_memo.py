"""Entries of the memo: whole or not there, made once, again under a number, put away at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from r2m.pipelines.memo import Memo, parts_of, write_entry

KEY, NAME = "0123456789ab", "sft-0123456789ab"
SORTS = {"model": "folder", "runs": "runs"}

MAKER = """
import sys, time
from pathlib import Path
from r2m.pipelines.memo import Memo, write_entry
storage, name, log, gate = sys.argv[1:]
with Memo(storage).making(name) as made:
    with open(log, "a") as file:
        file.write("there\\n" if made is None else "made\\n")
    if made is not None:
        folder, kept = made
        (kept / "half").touch()
        (folder / "model").mkdir()
        while not Path(gate).exists():
            time.sleep(0.01)
        (folder / "model" / "weights").write_text("w")
        write_entry(folder, {"model": str(folder / "model")}, {"model": "folder"}, "n.s", 1)
"""


@pytest.fixture
def memo(tmp_path: Path) -> Memo:
    return Memo(str(tmp_path))


def make(memo: Memo, name: str = NAME, text: str = "w") -> None:
    with memo.making(name) as made:
        assert made is not None
        folder, _ = made
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_text(text)
        write_entry(folder, {"model": str(folder / "model"), "runs": ["r"]}, SORTS, "n-x.s", 2.5)


def hidden(memo: Memo) -> list[str]:
    return sorted(path.name for path in memo.folder.glob(".*") if path.name != ".lock")


def test_an_entry_is_found_by_its_key_and_has_its_own_paths(memo: Memo) -> None:
    assert memo.find("sft", KEY) is None
    make(memo)
    entry = memo.find("sft", KEY)
    assert entry is not None
    assert (entry.name, entry.use, entry.key, entry.made_by, entry.seconds) == (NAME, "sft", KEY, "n-x.s", 2.5)
    assert Path(entry.outputs["model"], "weights").read_text() == "w"
    assert entry.outputs["model"] == str(memo.folder / NAME / "model")
    assert memo.find("reward-model", KEY) is None
    assert memo.entries() == [entry]
    assert hidden(memo) == []


def test_moved_with_its_storage_its_paths_are_those_of_the_new_place(memo: Memo, tmp_path: Path) -> None:
    make(memo)
    memo.folder.parent.rename(tmp_path.with_name("moved"))
    entry = Memo(str(tmp_path.with_name("moved"))).find("sft", KEY)
    assert entry is not None
    assert Path(entry.outputs["model"], "weights").is_file()


def test_of_one_that_fails_nothing_is_there_but_what_is_kept(memo: Memo) -> None:
    def fail() -> None:
        with memo.making(NAME) as made:
            assert made is not None
            (made[0] / "half").touch()
            (made[1] / "plan").write_text("p")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (memo.find("sft", KEY), memo.entries()) == (None, [])
    with memo.making(NAME) as made:
        assert made is not None
        assert list(made[0].iterdir()) == []
        assert (made[1] / "plan").read_text() == "p"
    assert not (memo.folder / NAME).exists()  # no entry was written


def test_made_again_it_has_a_number_and_is_the_one_that_is_found(memo: Memo) -> None:
    assert memo.new_name("sft", KEY) == NAME
    for number in range(1, 12):
        name = memo.new_name("sft", KEY)
        assert parts_of(name) == ("sft", KEY, number)
        make(memo, name)
    found = memo.find("sft", KEY)
    assert found is not None
    assert found.name == f"{NAME}-11"  # not -9, which is last by its letters
    assert memo.read(NAME) is not None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"outputs": 1, "sorts": {}}', "\0\0\0"])
def test_a_torn_entry_is_none_and_is_made_again(memo: Memo, text: str) -> None:
    make(memo)
    (memo.folder / NAME / "entry.json").write_text(text)
    assert (memo.find("sft", KEY), memo.entries()) == (None, [])
    again = memo.new_name("sft", KEY)
    make(memo, again)
    found = memo.find("sft", KEY)
    assert found is not None
    assert found.name == again


def test_a_folder_that_is_no_entry_gives_way(memo: Memo) -> None:
    (memo.folder / NAME).mkdir(parents=True)
    (memo.folder / NAME / "half").touch()
    make(memo, memo.new_name("sft", KEY))
    assert sorted(path.name for path in (memo.folder / NAME).iterdir()) == ["entry.json", "model"]


def maker(memo: Memo, log: Path, gate: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", MAKER, str(memo.folder.parent), NAME, str(log), str(gate)])


def until(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.01)


def test_of_two_processes_that_want_to_make_it_one_does(memo: Memo, tmp_path: Path) -> None:
    log, gate = tmp_path / "log", tmp_path / "gate"
    both = [maker(memo, log, gate) for _ in range(2)]
    until(log, both[0])
    gate.touch()
    assert [process.wait(60) for process in both] == [0, 0]
    assert log.read_text().splitlines() == ["made", "there"]
    assert hidden(memo) == []


def test_a_killed_maker_leaves_what_the_next_one_goes_on_with(memo: Memo, tmp_path: Path) -> None:
    log, gate = tmp_path / "log", tmp_path / "gate"
    process = maker(memo, log, gate)
    until(memo.folder / f".{NAME}.kept" / "half", process)
    assert memo.clear(NAME) is False  # a process is at it
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    assert memo.entries() == []
    assert hidden(memo) == [f".{NAME}.kept", f".{NAME}.lock", f".{NAME}.partial"]
    assert {name: len(paths) for name, paths in memo.halves().items()} == {NAME: 3}
    gate.touch()
    assert maker(memo, log, gate).wait(60) == 0
    assert log.read_text().splitlines() == ["made", "made"]
    assert hidden(memo) == []


def test_halves_are_cleared_and_entries_are_not(memo: Memo) -> None:
    make(memo, f"{NAME}-2")
    (memo.folder / f".{NAME}.kept").mkdir()
    (memo.folder / f".{NAME}-2.lock").touch()
    assert sorted(memo.halves()) == [NAME, f"{NAME}-2"]
    assert [memo.clear(NAME), memo.clear(f"{NAME}-2")] == [True, True]
    assert hidden(memo) == []
    assert memo.read(f"{NAME}-2") is not None


def test_what_is_taken_says_when(memo: Memo) -> None:
    make(memo)
    os.utime(memo.folder / NAME / "entry.json", (1000, 1000))
    found = memo.find("sft", KEY)
    assert found is not None
    assert found.used == 1000
    before = time.time()
    taken = memo.take("sft", KEY)
    assert taken is not None
    assert memo.entries()[0].used >= before - 1


def test_put_away_it_is_there_no_more(memo: Memo) -> None:
    make(memo)
    memo.put_away(memo.entries()[0])
    assert memo.find("sft", KEY) is None
    (gone,) = memo.gone()
    assert json.loads((gone / "entry.json").read_text())["outputs"]["runs"] == ["r"]
    make(memo, memo.new_name("sft", KEY))
    memo.put_away(memo.entries()[0])
    assert len(memo.gone()) == 2


def test_what_it_names(memo: Memo) -> None:
    make(memo)
    (entry,) = memo.entries()
    assert (entry.named(), entry.named("runs"), entry.named("sweeps")) == ({"r"}, {"r"}, set())
