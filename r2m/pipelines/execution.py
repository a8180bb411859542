"""Executions of pipelines: `<storage>/pipelines/NAME-TICK-DIGEST`, and `….STEP` for a step's run.

The same file, tick and settings is one execution, whatever has ended a process that was at it: its folder is found by
its name, and its journal says how far it has come. What the steps have made is the memo's (r2m.pipelines.memo).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from r2m.config import digest
from r2m.errors import UserError, shown
from r2m.files import folder_made_whole
from r2m.line_file import is_held
from r2m.pipelines.schema import Pipeline
from r2m.pipelines.work import Where
from r2m.runs.folder import JOURNAL
from r2m.runs.journal import STATUS_OF_EVENT, Journal, JournalView, find, read
from r2m.runs.provenance import environment, git_state
from r2m.runs.records import Record, last_of_steps, worked_s
from r2m.tracking.mlflow_sink import default_tracking_uri

ROLE, STEP_ROLE = "pipeline", "step"  # r2m.role of an execution and of a step's run
TICK = "%Y%m%dT%H%MZ"
_RUN_ID = re.compile(r"(.+)-(\d{8}T\d{4}Z|\d{8}T\d{6}Zm)-([0-9a-f]{6})")


@dataclass(frozen=True)
class Execution:
    pipeline: Pipeline
    where: Where
    folder: Path

    @property
    def run_id(self) -> str:
        return self.folder.name

    @property
    def journal(self) -> Path:
        return self.folder / JOURNAL

    @property
    def tracking_uri(self) -> str:
        return self.where.tracking_uri or default_tracking_uri(self.where.storage)

    def step_folder(self, step: str) -> Path:
        """Of the step's run."""
        return self.folder.with_name(f"{self.run_id}.{step}")


def tick_of(text: str) -> datetime:
    """Raises UserError for what is no time with an offset."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise UserError(f"--tick {shown(text)}: due, or a time such as 2026-12-01T03:00Z, with Z or an offset")
    return time.astimezone(UTC).replace(second=0, microsecond=0)


def open_execution(pipeline: Pipeline, tick: datetime | None, where: Where) -> Execution:
    """The execution of that tick, begun where there is none. Without a tick: the last one without that has not ended
    well, else a new one. Raises UserError where a folder cannot be made."""
    own = digest(pipeline.model_dump(mode="json", include={"name", "parameters", "steps"}))[:6]
    if tick is not None:
        stamp = tick.strftime(TICK)
    else:
        open_ = [e for e in executions(where.storage, pipeline.name)
                 if e.manual and e.view.run_id.endswith(own) and e.view.status != "finished"]  # fmt: skip
        stamp = open_[-1].stamp if open_ else datetime.now(UTC).strftime("%Y%m%dT%H%M%SZm")
    folder = pipelines_folder(where.storage) / f"{pipeline.name}-{stamp}-{own}"
    execution = Execution(pipeline, where, folder)
    if find(execution.journal) is None:
        _begin(execution, stamp)
    return execution


def skip_execution(pipeline: Pipeline, tick: datetime, where: Where, reason: str) -> None:
    """Write down that a tick was given up. Whoever asks for it by hand runs it all the same."""
    execution = open_execution(pipeline, tick, where)
    with suppress(UserError), Journal(execution.journal) as journal:  # held: somebody is at it
        if not read(execution.journal).events:
            journal.event("skipped", reason=reason)


def pipelines_folder(storage: str) -> Path:
    return Path(storage).absolute() / "pipelines"


@dataclass(frozen=True)
class Kept:
    """An execution as its folder has it. `stamp`: of its tick, or of when it began."""

    folder: Path
    view: JournalView
    stamp: str

    @property
    def name(self) -> str:
        return self.view.tags["r2m.pipeline"]

    @property
    def manual(self) -> bool:
        return self.stamp.endswith("m")

    @property
    def tick(self) -> datetime | None:
        """None of one that nobody's clock started."""
        return None if self.manual else datetime.strptime(self.stamp, TICK).replace(tzinfo=UTC)

    @property
    def steps(self) -> dict[str, Record]:
        """The last event of each step."""
        return last_of_steps(self.view.events)

    @property
    def entries(self) -> set[str]:
        """Names of the memo's entries that it used."""
        return {e["entry"] for e in self.view.events if e["name"] == "step" and e.get("entry")}

    @property
    def running(self) -> bool:
        """Whether a process is at it."""
        return is_held(self.folder / JOURNAL)

    @property
    def state(self) -> str:
        """finished, failed, stopped, skipped, running, or interrupted: whoever was at it has been killed."""
        status = self.view.status
        return "interrupted" if status == "running" and not self.running else status

    @property
    def verdict(self) -> str:
        """The one line that matters: why it has not finished, else what came of it."""
        ended = next((e for e in reversed(self.view.events) if e["name"] in STATUS_OF_EVENT), {})
        said = next((e["text"] for e in reversed(self.view.events) if e["name"] == "verdict"), "")
        return str(ended.get("reason") or said)

    @property
    def since(self) -> float:
        """When the last process at it began, in seconds since the epoch."""
        return next((e["time"] for e in reversed(self.view.events) if e["name"] == "resume"), self.view.start["time"])

    @property
    def seconds(self) -> float:
        """That processes were at it, up to the last that they wrote."""
        return worked_s(self.view.events)


def maker(made_by: str) -> tuple[str, str]:
    """(pipeline, step) of a step's run."""
    run, _, step = made_by.rpartition(".")
    named = _RUN_ID.fullmatch(run)
    return (named[1], step) if named else ("", "")


def executions(storage: str, name: str | None = None) -> list[Kept]:
    """All, or a pipeline's, in the order of their ticks and beginnings."""
    found = []
    for folder in sorted(pipelines_folder(storage).glob("*")):
        named = _RUN_ID.fullmatch(folder.name)
        if named and (name is None or named[1] == name) and (view := find(folder / JOURNAL)):
            found.append(Kept(folder, view, named[2]))
    return sorted(found, key=lambda kept: (kept.name, kept.view.start["time"]))


def begin_step(execution: Execution, step: str, settings: Mapping[str, Any]) -> Path:
    """The folder of a step's run, whose journal is started where it hasn't been."""
    folder = execution.step_folder(step)
    if find(folder / JOURNAL) is None:
        use = execution.pipeline.steps[step].use
        tags = _tags(execution.pipeline, STEP_ROLE) | {"r2m.step": step, "r2m.arm": use}
        _start(folder, {"step": step, "use": use, "settings": dict(settings)}, execution, tags, execution.run_id)
    return folder


def _begin(execution: Execution, stamp: str) -> None:
    p = execution.pipeline
    tags = _tags(p, ROLE) | {"r2m.arm": "pipeline", "r2m.tick": stamp}
    steps = {name: step.model_dump(mode="json", exclude_none=True) for name, step in p.steps.items()}
    tree = {"pipeline": p.name, "parameters": p.parameters, "steps": steps}
    _start(execution.folder, tree, execution, tags, None)


def _tags(pipeline: Pipeline, role: str) -> dict[str, str]:
    return {"r2m.pipeline": pipeline.name, "r2m.role": role}


def _start(
    folder: Path, tree: dict[str, Any], execution: Execution, tags: dict[str, str], parent: str | None
) -> None:
    with folder_made_whole(folder, f"pipeline = {folder.name!r}") as aside, Journal(aside / JOURNAL) as journal:
        (aside / "config.yaml").write_text(
            yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
        journal.start(
            run_id=folder.name, task="pipeline", policy=execution.pipeline.name, config=tree,
            config_hash=digest(tree), data_hash=digest([]), datasets=[], versions=environment(), git=git_state(),
            experiment=f"r2m/pipelines/{execution.pipeline.name}", parent=parent, tags=tags,
        )  # fmt: skip


def names_of(kept: Iterable[Kept]) -> list[str]:
    """Of the pipelines."""
    return list(dict.fromkeys(each.name for each in kept))
