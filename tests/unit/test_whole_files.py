"""Files are whole or not there, whatever fails."""

import os
import threading
from pathlib import Path

import pytest

from r2m.files import made_whole, write_whole


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_whole(path, "1")
    aside = tmp_path / "aside"

    def fail() -> None:
        with made_whole(path, aside):
            aside.write_text("half")
            assert path.read_text() == "1"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.json", "1")]


def test_nothing_made_takes_no_place(tmp_path: Path) -> None:
    with made_whole(tmp_path / "a.png"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_has_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "aside" / "old").mkdir(parents=True)
    with made_whole(tmp_path / "folder", tmp_path / "aside") as aside:
        aside.mkdir()
        (aside / "new").touch()
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["folder", "folder/new"]


def test_a_link_leads_to_the_same_place_afterwards(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "there")
    for text in "12":
        write_whole(tmp_path / "link", text)
        assert (tmp_path / "there").read_text() == text
    assert (tmp_path / "link").is_symlink()


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe, said = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: said.append(pipe.read_text()), daemon=True)
    reader.start()
    write_whole(pipe, "for the reader")
    reader.join(60)
    assert said == ["for the reader"]
    assert pipe.is_fifo()
