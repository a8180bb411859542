"""`r2m compare`: runs by name, by sweep and by MLflow's filter, and what it says of what it cannot compare."""

import json
import shutil
import sys

import pytest
from made_assessments import assessment, response
from made_runs import MadeRuns
from pages import Page

from r2m.cli import main
from r2m.runs.journal import Journal
from r2m.tracking.mlflow_sink import Sink, default_tracking_uri

R2M = ["reward.feedback=on"]
SAMPLES = {1: [{"prompt": "p", "response": "from a journal", "proxy": 1.0, "vanilla": 1.0, "gold": 0.0}]}


@pytest.fixture
def runs(tmp_path):
    made = MadeRuns(tmp_path / "storage")
    for seed in range(2):
        made.run(f"rloo-{seed}", (0.5, 1.0, 1.0), (0.25, 4.0, 2.0), seed=seed, samples=SAMPLES)
        made.run(f"s-r2m-s{seed}", (0.5, 1.0, 1.0), (0.5, 4.0, 2.0), seed=seed, settings=R2M, start={"parent": "s"})
    with Journal(made.storage / "sweeps" / "s" / "journal.jsonl") as journal:
        journal.start(run_id="s", task="forum", policy="p", config={}, versions={}, git={}, config_hash="c",
                      data_hash="d", datasets=[])  # fmt: skip
    return made


@pytest.fixture
def compare(runs, monkeypatch, capsys):
    """Runs the command in the runs' storage; returns its exit code, output and errors."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["r2m", "compare", *words, "--storage", str(runs.storage)])
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsys.readouterr()
        return exit_.value.code or 0, out, err

    return call


def test_runs_and_a_sweep_are_compared_and_written(compare, runs, tmp_path):
    code, out, err = compare("rloo-0", "rloo-1", "s", "--json", str(tmp_path / "numbers.json"))
    assert code == 0, err
    assert "R2M is better than RLOO" in " ".join(out.split())
    page = Page((runs.storage / "compare.html").read_text("utf-8"))
    assert page.text.startswith("rloo-0, rloo-1, s")
    assert page.table("runs", "vanilla").number("R2M", under="gold") == 0.5
    assert "from a journal" in page.text
    (setup,) = json.loads((tmp_path / "numbers.json").read_text())["setups"]
    assert [arm["runs"] for arm in setup["arms"]] == [["rloo-0", "rloo-1"], ["s-r2m-s0", "s-r2m-s1"]]
    assert not list(runs.storage.glob(".*"))


def test_the_baseline_and_the_page_can_be_chosen(compare, tmp_path):
    code, out, _ = compare(
        "rloo-0", "s", "--baseline", "R2M", "--metric", "eval/vanilla", "--out", f"{tmp_path}/a.html"
    )
    assert code == 0
    for fact in ("RLOO from R2M", "eval/vanilla", "same KL"):
        assert fact in " ".join(out.split())
    assert (tmp_path / "a.html").is_file()


def test_one_run_is_enough_and_a_run_without_a_journal_is_named(compare):
    code, out, err = compare("rloo-0", "gone", "missing")
    assert code == 0
    assert "One arm, RLOO" in out
    assert "gone, missing" in " ".join(err.split())


def test_texts_of_an_assessment_are_shown(compare, runs):
    known = assessment(response("q", "<b>assessed</b>", proxy=1.0, vanilla=1.0, gold=1.0))
    known.write(runs.storage / "runs" / "rloo-0")
    assert compare("rloo-0")[0] == 0
    page = Page((runs.storage / "compare.html").read_text("utf-8"))
    texts = next(table for table in page.tables if "response" in table.head)
    assert texts.cell("q", under="response") == "<b>assessed</b>"
    assert texts.cell("q", under="round") == "end"


def test_a_filter_finds_what_mlflow_has(compare, runs):
    for name in ("rloo-0", "s-r2m-s0"):
        Sink(default_tracking_uri(runs.storage), runs.storage / "runs" / name).ship()
    code, out, _ = compare("--filter", "tags.`r2m.arm` = 'R2M'")
    assert code == 0
    assert "One arm, R2M" in out
    code, _, err = compare("--filter", "tags.`r2m.arm` = 'GRPO'")
    assert code == 2
    assert "the filter finds none" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "RUN: give runs, sweeps or --filter"),
        (["gone"], "no journal in {storage} of gone"),
        (["rloo-0", "--baseline", "PPO"], "--baseline 'PPO': 'RLOO' are allowed"),
        (["rloo-0", "--metric", "eval/proxy"], "--metric 'eval/proxy'"),
        (["rloo-0", "--out", "{storage}/no/such.html"], "--out '{storage}/no/such.html': a file in a folder that"),
        (["--filter", "x = 1"], "no such file; r2m sync RUN makes it"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(compare, runs, words, message):
    code, _, err = compare(*(word.format(storage=runs.storage) for word in words))
    assert code == 2
    assert message.format(storage=runs.storage) in err
    assert err.count("\n") == 1
    assert not (runs.storage / "compare.html").exists()


def test_in_a_storage_that_can_only_be_read_the_comparison_is_said_all_the_same(compare, runs, read_only, tmp_path):
    disk, freeze = read_only
    shutil.copytree(runs.storage, disk, dirs_exist_ok=True)
    runs.storage = disk
    freeze()
    code, out, err = compare("rloo-0", "rloo-1", "s")
    assert code == 0
    assert "R2M is better than RLOO" in " ".join(out.split())
    for fact in ("not written", f"{disk}/compare.html", "Read-only file system", "--out"):
        assert fact in err.splitlines()[-1]
    code, _, err = compare("rloo-0", "s", "--out", str(tmp_path / "page.html"))
    assert (code, "not written" in err) == (0, False)
    assert (tmp_path / "page.html").is_file()
    code, _, err = compare("rloo-0", "s", "--out", str(disk / "page.html"))
    assert code == 2
    assert "Read-only file system" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_journal_that_a_power_cut_tore_is_compared_as_far_as_it_is_whole(compare, runs):
    journal = runs.storage / "runs" / "rloo-0" / "journal.jsonl"
    whole = compare("rloo-0", "s")[1]
    journal.write_bytes(journal.read_bytes() + b"\0" * 100 + b"\n")
    code, out, err = compare("rloo-0", "s")
    assert (code, out) == (0, whole)
    assert "rloo-0: its journal ends in 101 bytes with NULs" in err
    journal.write_bytes(journal.read_bytes() + b'{"time": 1.0, "kind": "event", "name": "resume"}\n')
    code, _, err = compare("rloo-0", "s")
    assert code == 2
    (line,) = err.splitlines()
    assert line.endswith(": not a record")
