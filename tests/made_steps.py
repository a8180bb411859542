"""Kinds of steps that take milliseconds, for what runs steps: here, and in the processes of their own.

`registered` puts them among the kinds of this process; those that it starts find them by sitecustomize.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field
from rich.console import Console

from r2m.config import Section
from r2m.errors import UserError
from r2m.pipelines.contents import Contents
from r2m.pipelines.execution import Execution, open_execution, tick_of
from r2m.pipelines.kinds import STEP_KINDS
from r2m.pipelines.schema import Pipeline
from r2m.pipelines.spec import load_pipeline
from r2m.pipelines.work import Kind, StepOutputs, StoppedStepError, Where, Work
from r2m.runs.journal import JournalView, read

FIRST = "2026-12-01T03:00Z"
ROOT = Path(__file__).resolve().parents[1]


class MadeStep(Section):
    """Writes `text` and what is in `reads` to its file; `log`, no part of the result, is told of each attempt.

    `fails`: so many attempts do, by `how`. `waits`: for that file.
    """

    log: str
    text: str = ""
    reads: list[str] = Field([])
    names: list[str] = Field([])
    fails: int = 0
    how: str = "error"
    waits: str | None = None


def _run(step: MadeStep, work: Work) -> StepOutputs:
    me = work.made_by.rpartition(".")[2]
    with open(step.log, "a") as log:
        log.write(f"begin {me}\n")
        log.flush()
        try:
            while step.waits and not Path(step.waits).exists():
                time.sleep(0.01)
        except KeyboardInterrupt:
            raise StoppedStepError from None
    attempts = Path(step.log).read_text().count(f"begin {me}\n")
    if attempts <= step.fails:
        if step.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise UserError("text = 'x': wrong") if step.how == "input" else RuntimeError(f"attempt {attempts} of {me}")
    text = step.text + "".join(Path(each).read_text() for each in step.reads)
    (work.folder / "made.txt").write_text(text)
    with open(step.log, "a") as log:
        log.write(f"end {me}\n")
    return {"file": str(work.folder / "made.txt"), "text": text, "names": step.names}


def _determines(step: MadeStep, contents: Contents) -> Any:
    return [step.text, [contents.place(path) for path in step.reads], step.names]


def _made(whole: bool) -> Kind:
    outputs = {"file": "file", "text": "text", "names": "runs"}
    return Kind(MadeStep, outputs, 1, _determines, lambda step, where: None, _run, whole=whole)  # type: ignore


MADE = {"made": _made(False), "whole": _made(True)}


def registered(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """`folder`: an empty one, for sitecustomize.py."""
    for name, kind in MADE.items():
        monkeypatch.setitem(STEP_KINDS, name, kind)
    (folder / "sitecustomize.py").write_text("import tests.made_steps as s\ns.STEP_KINDS.update(s.MADE)\n")
    paths = [str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


class Night:
    """`run` writes the steps to a file and brings them up to date: how it ended. `log`: what the steps wrote."""

    def __init__(self, folder: Path, database: Path) -> None:
        self.folder, self.storage = folder, folder / "storage"
        self.storage.mkdir()
        shutil.copyfile(database, self.storage / "mlflow.db")
        self.said = ""
        self.execution: Execution

    def step(self, **settings: Any) -> dict[str, Any]:
        return {"use": "made", "log": str(self.folder / "log"), **settings}

    def load(self, steps: dict[str, Any], **tree: Any) -> Pipeline:
        path = self.folder / f"{tree.get('name', 'night')}.yaml"
        path.write_text(yaml.safe_dump({"backoff_s": 0, **tree, "steps": steps}, sort_keys=False))
        return load_pipeline(path)

    def open(self, pipeline: Pipeline, tick: str | None = FIRST) -> Execution:
        where = Where(str(self.storage))
        return open_execution(pipeline, None if tick is None else tick_of(tick), where)

    def run(self, steps: dict[str, Any], tick: str | None = FIRST, *, tree: Any = None, **options: Any) -> str:
        self.execution = self.open(self.load(steps, **(tree or {})), tick)
        to = StringIO()
        try:
            from r2m.pipelines.driver import run_execution  # loads what no step's process needs

            return run_execution(self.execution, console=Console(file=to, width=1000), **options)
        finally:
            self.said = to.getvalue()

    @property
    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def view(self) -> JournalView:
        return read(self.execution.journal)

    def states(self, step: str) -> list[str]:
        """Of a step, one after the other."""
        return [e["state"] for e in self.view.events if e["name"] == "step" and e["step"] == step]

    def ran(self) -> list[str]:
        """What has begun since it was asked last."""
        began = [line.removeprefix("begin ") for line in self.log if line.startswith("begin")]
        (self.folder / "log").unlink(missing_ok=True)
        return began
