"""A sweep's notes, read by optuna-dashboard's own application from a real study."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from markdown_it import MarkdownIt
from optuna.artifacts import FileSystemArtifactStore
from optuna_dashboard._app import create_app
from optuna_dashboard._note import save_note_with_version

from r2m.reports.sweep_notes import escaped, fenced
from r2m.runs.journal import Journal
from r2m.sweeps.ledger import Job, Ledger
from r2m.sweeps.notes import write_notes
from r2m.sweeps.sweep import PICTURES, Opened, answer_of, runs_of

MakeSweep = Callable[..., Opened]

HOSTILE = "````\n<script>alert(1)</script>\n![x](http://127.0.0.1:1/x.png)\n~~~\n# no heading\x1b[31m"
PARAMETERS = {"reward.alpha": {"uniform": [0, 1]}}


class Made:
    """A sweep whose jobs are ended by hand."""

    def __init__(self, opened: Opened, models: tuple[str, str]) -> None:
        self.opened, self.study = opened, opened.study()
        self.ledger = Ledger(
            opened.sweep, opened.name, opened.storage, self.study, models, opened.experiment, opened.extra
        )

    def next(self) -> Job:
        job = self.ledger.next()
        assert job is not None
        return job

    def end(self, job: Job, *golds: float, event: str = "finished", text: str = HOSTILE, **fields: str) -> None:
        with Journal(job.runs[0].journal) as journal:
            for step, gold in enumerate(golds, 1):
                metrics = {"eval/gold": gold, "eval/kl_sequence": 3.0, "reward/proxy": -gold, "kl/sequence": 3.0}
                journal.round(step, metrics)
                texts = (("plain", 0.0, 0.5), (text, 2.0, -0.5))
                rows = [{"prompt": f"{said}?", "response": said, "proxy": p, "vanilla": p, "gold": g}
                        for said, p, g in texts]  # fmt: skip
                journal.samples(step, rows)
            journal.event(event, **fields)
        self.ledger.settle(job, None)

    def write(self) -> None:
        write_notes(self.opened, self.study, answer_of(self.opened, self.study, runs_of(self.opened)))

    def shown(self) -> Any:
        """What optuna-dashboard's page of the study asks it for."""
        return json.loads(self.page(f"/api/studies/{self.study._study_id}"))

    def page(self, path: str) -> bytes:
        store = FileSystemArtifactStore(self.opened.folder / PICTURES)
        app = create_app(self.study._storage, artifact_store=store)
        environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
        setup_testing_defaults(environ)
        status: list[str] = []
        body = b"".join(app(environ, lambda line, headers, error=None: status.append(line)))
        assert status == ["200 OK"], (path, status, body)
        return body


@pytest.fixture
def made(make_sweep: MakeSweep, forum_models: tuple[str, str]) -> Made:
    return Made(
        make_sweep(parameters=PARAMETERS, budget={"trials": 3, "evaluations": 2}, baselines={}, confirm=[10]),
        forum_models,
    )


def test_the_answer_and_what_became_of_each_trial(made: Made) -> None:
    first, second = made.next(), made.next()
    made.write()
    assert made.shown()["note"]["body"].startswith(r"**No trial is complete \(2 running\)\: there is nothing")
    made.end(first, 0.25, 0.5)
    made.end(second, event="failed", reason="round 1: the gradient's norm is <b>nan</b>")
    made.write()
    shown = made.shown()
    assert shown["note"]["version"] == 2
    assert "t000 leads the search by eval\\/gold" in shown["note"]["body"]
    assert r"| t000 | complete | 0\.500 | 3\.00 |" in shown["note"]["body"]

    done, failed = shown["trials"]
    (picture,) = done["artifacts"]
    assert (picture["filename"], picture["mimetype"]) == ("curves.png", "image/png")
    address = f"/artifacts/{made.study._study_id}/{done['trial_id']}/{picture['artifact_id']}"
    assert made.page(address).startswith(b"\x89PNG\r\n")
    body = done["note"]["body"]
    assert body.startswith(r"**t000\: complete\; eval\/gold 0\.500\, KL 3\.00**")
    assert f"![curves]({address})" in body
    assert "r2m train" in body
    assert "### Liked in training, not by gold" in body
    assert body.count(fenced(f"{HOSTILE}?\n\n→ {HOSTILE}")) == 1  # of two rounds, once
    assert "plain" not in body
    assert (failed["artifacts"], "![" in failed["note"]["body"]) == ([], False)
    assert escaped("norm is <b>nan</b>") in failed["note"]["body"]


def test_a_models_text_does_nothing(made: Made) -> None:
    job = made.next()
    made.end(job, 0.5)
    made.write()
    (trial,) = made.shown()["trials"]
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table"]).parse(trial["note"]["body"])
    flat = [token for block in tokens for token in (block, *(block.children or ()))]
    assert [t.type for t in flat if t.type in ("html_block", "html_inline", "link_open")] == []
    assert [t.attrs["src"][:11] for t in flat if t.type == "image"] == ["/artifacts/"]
    assert [t.content for t in flat if t.type == "inline" and t.map and "heading" in t.content] == []
    texts = [t.content for t in flat if t.type == "fence"]
    shown = HOSTILE.replace("\x1b", "\\x1b")
    assert texts[1:] == [f"{shown}?\n\n→ {shown}\n"]
    line = MarkdownIt("commonmark", {"html": True}).renderInline(escaped("*a* <b> `c` [d](e) &amp; # \\"))
    assert line == "*a* &lt;b&gt; `c` [d](e) &amp;amp; # \\"


def test_long_texts_are_wrapped_and_whole(made: Made) -> None:
    """Among them one without spaces, as the policy learns to write."""
    job = made.next()
    long = " ".join(["word"] * 60) + "  " + "x" * 250
    made.end(job, 0.5, text=long)
    made.write()
    (trial,) = made.shown()["trials"]
    block = trial["note"]["body"].split("```text\n")[2].split("\n```")[0]
    assert max(map(len, block.splitlines())) == 100
    assert block.replace("\n", "") == f"{long}?→ {long}"


def test_what_stands_is_not_written_again_and_a_users_words_stay(made: Made) -> None:
    made.end(made.next(), 0.25)
    made.write()
    before, times = made.shown(), [path.stat().st_mtime_ns for path in pictures(made)]
    made.write()
    assert made.shown() == before
    assert [path.stat().st_mtime_ns for path in pictures(made)] == times

    storage, study_id, trial_id = made.study._storage, made.study._study_id, before["trials"][0]["trial_id"]
    save_note_with_version(storage, study_id, trial_id, 2, "mine")
    made.end(made.next(), 0.5)
    made.write()
    shown = made.shown()
    assert shown["trials"][0]["note"] == {"version": 2, "body": "mine"}
    assert len(pictures(made)) == 2
    assert shown["note"]["version"] == before["note"]["version"] + 1

    save_note_with_version(storage, study_id, None, shown["note"]["version"] + 1, "ours")
    made.end(made.next(), 0.75)
    made.write()
    assert made.shown()["note"]["body"] == "ours"


def test_a_longer_note_is_whole_and_a_shorter_one_leaves_nothing(made: Made) -> None:
    """optuna-dashboard cuts a note into attributes, and puts all of them together again."""
    jobs = [made.next() for _ in range(3)]
    made.write()
    short = made.shown()["note"]["body"]
    storage, study_id = made.study._storage, made.study._study_id
    signed = short.splitlines()[-1]
    save_note_with_version(storage, study_id, None, 2, "x" * 5000 + signed)
    made.write()
    assert made.shown()["note"] == {"version": 3, "body": short}
    assert len(jobs) == 3


def pictures(made: Made) -> list[Path]:
    return sorted((made.opened.folder / PICTURES).iterdir())
