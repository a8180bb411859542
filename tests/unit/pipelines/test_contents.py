"""Digests of what a step reads: by its content, and by nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from r2m.config import load
from r2m.pipelines.contents import WORTH_KEEPING, Contents
from tests.made_runs import MadeRuns


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "weights").write_bytes(b"abc" * 100)
    (folder / "deep" / "config.json").write_text("{}")
    return folder


def of(path: Path | str, storage: Path | None = None) -> str | None:
    return Contents(str(storage or "/nowhere"), storage or Path("/nowhere")).place(str(path))


def test_the_same_content_elsewhere_is_the_same(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "other" / "name")
    assert of(copy) == of(model)
    assert of(copy / "weights") == of(model / "weights")
    assert of(tmp_path / "none") != of(model)


def test_one_byte_a_name_or_a_file_more_is_not(model: Path) -> None:
    seen = {of(model)}
    (model / "weights").write_bytes(b"abc" * 99 + b"abd")
    seen.add(of(model))
    (model / "weights").rename(model / "weights2")
    seen.add(of(model))
    (model / "more").touch()
    seen.add(of(model))
    (model / "deep" / "more").touch()
    seen.add(of(model))
    assert len(seen) == 5


def test_when_it_was_written_and_what_is_beside_a_model_do_not_matter(model: Path) -> None:
    before = of(model)
    os.utime(model / "weights", (1, 1))
    for name in ("report.json", "finished", ".lock"):
        (model / name).write_text("x")
    assert of(model) == before


def test_an_id_on_the_hub_stands_for_itself() -> None:
    assert of("EleutherAI/pythia-1b") == "EleutherAI/pythia-1b"
    assert Contents("/nowhere", Path("/nowhere")).place(None) is None


def test_digests_of_large_files_are_kept_until_size_or_time_differ(tmp_path: Path) -> None:
    folder, large, small = tmp_path / "memo", tmp_path / "large", tmp_path / "small"
    large.write_bytes(b"x" * WORTH_KEEPING)
    small.write_bytes(b"x")
    contents = Contents(str(tmp_path), folder)
    first = contents.place(str(large))
    contents.place(str(small))
    contents.keep()
    kept = json.loads((folder / "digests.json").read_text())
    assert list(kept) == [str(large)]
    kept[str(large)][2] = "of this it was read"
    (folder / "digests.json").write_text(json.dumps(kept))
    assert Contents(str(tmp_path), folder).place(str(large)) == "of this it was read"
    os.utime(large, (1, 1))
    assert Contents(str(tmp_path), folder).place(str(large)) == first
    (folder / "digests.json").write_text("{torn")
    assert Contents(str(tmp_path), folder).place(str(large)) == first


def test_nothing_is_kept_where_nothing_was_worked_out(tmp_path: Path) -> None:
    contents = Contents(str(tmp_path), tmp_path / "memo")
    contents.place("hub/id")
    contents.keep()
    assert not (tmp_path / "memo").exists()


def test_a_run_is_its_journal(runs: MadeRuns) -> None:
    runs.run("a", [0.1])
    contents = Contents(str(runs.storage), runs.storage)
    before = contents.run("a")
    (runs.storage / "runs" / "a" / "other").touch()
    assert contents.run("a") == before
    with open(runs.storage / "runs" / "a" / "journal.jsonl", "a") as file:
        file.write('{"kind": "event"}\n')
    assert contents.run("a") != before
    assert contents.run("none") == "run absent"


def test_a_configuration_is_its_settings_and_what_they_name(model: Path, tmp_path: Path) -> None:
    def tree(*settings: str, policy: Path = model) -> object:
        config = load("forum", [f"policy.model={policy}", *settings])
        return Contents(str(tmp_path), tmp_path).config(config)

    copy = shutil.copytree(model, tmp_path / "copy")
    assert tree() == tree(policy=copy) == tree(f"run.storage={tmp_path}", "run.tracking_uri=sqlite:////tmp/x.db")
    assert tree() != tree("reward.alpha=0.4")
    (copy / "weights").write_bytes(b"")
    assert tree() != tree(policy=copy)
