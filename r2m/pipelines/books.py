"""What an execution has done, written down as it is done: in its journal, those of its steps' runs, and MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r2m.pipelines.execution import Execution, begin_step
from r2m.runs.folder import JOURNAL
from r2m.runs.journal import Journal, find, read
from r2m.tracking.shipper import BackgroundShipper
from r2m.training.driver import SHIP_TIMEOUT_S

OF_RUN = {"done": "finished", "cached": "finished", "failed": "failed", "stopped": "stopped"}  # a step -> its run
SHIPPED = "shipped"  # the event of an execution's journal


class Books:
    def __init__(self, execution: Execution, journal: Journal) -> None:
        self._execution, self._journal = execution, journal
        self._shipper: BackgroundShipper | None = None
        self._ended: set[Path] = set()

    def event(self, name: str, **fields: Any) -> None:
        self._journal.event(name, **fields)

    def step(self, step: str, state: str, **facts: Any) -> None:
        """An event of the execution: what has become of a step."""
        use = self._execution.pipeline.steps[step].use
        self._journal.event("step", step=step, use=use, state=state, **facts)

    def begin_run(self, step: str, settings: Mapping[str, Any], attempt: int) -> Path:
        """The folder of the step's run, which goes on."""
        folder = begin_step(self._execution, step, settings)
        with Journal(folder / JOURNAL) as journal:
            journal.event("resume", attempt=attempt)
        self._ship().add(self._execution.folder)
        self._ship().add(folder)
        return folder

    def end_run(self, step: str, how: str, seconds: float, **facts: Any) -> None:
        """`facts`: reason, or the sweeps in whose runs its result consists."""
        folder = self._execution.step_folder(step)
        with Journal(folder / JOURNAL) as journal:
            journal.round(_sessions(folder), {"pipeline/seconds": seconds})
            journal.event(OF_RUN[how], **facts)
        self._ship().finish(folder)
        self._ended.add(folder)

    def is_open(self, step: str) -> bool:
        """Whether the step's run has been begun and not ended: its driver was killed."""
        view = find(self._execution.step_folder(step) / JOURNAL)
        return view is not None and view.status == "running"

    @property
    def forced(self) -> dict[str, float]:
        """The steps that a session which did not come to its end was asked to force, and since when, in seconds since
        the epoch: what has been made since is not made once more."""
        forced: dict[str, float] = {}
        for event in read(self._execution.journal).events:
            if event["name"] in ("finished", "failed"):
                forced = {}
            elif event["name"] == "resume":
                forced = {str(step): float(event["time"]) for step in event.get("force", ())} | forced
        return forced

    @property
    def shipped(self) -> bool:
        """Whether MLflow has all of an execution that has ended."""
        events = [event["name"] for event in read(self._execution.journal).events]
        return events[-1:] == [SHIPPED]

    def end(self, how: str, states: Sequence[str], seconds: float, **facts: Any) -> None:
        """`states`: of the steps."""
        counts = {"ran": states.count("done"), "cached": states.count("cached")}
        counts["failed"] = states.count("failed") + states.count("blocked")
        numbers = {f"pipeline/{name}": float(count) for name, count in counts.items()}
        self._journal.round(_sessions(self._execution.folder), numbers | {"pipeline/seconds": seconds})
        self._journal.event(how, **facts)

    def close(self, artifacts: Sequence[Path]) -> str | None:
        """Ship what is left, also by drivers that were killed, with these files: why MLflow did not take everything,
        if it did not."""
        shipper = self._ship()
        for step in self._execution.pipeline.steps:
            folder = self._execution.step_folder(step)
            if folder not in self._ended and folder.is_dir():
                shipper.finish(folder)
        shipper.finish(self._execution.folder, artifacts)
        if not shipper.close(SHIP_TIMEOUT_S):
            return shipper.trouble
        self.event(SHIPPED)
        return None

    def _ship(self) -> BackgroundShipper:
        """From the first step that runs on, else at the end: loading MLflow takes seconds."""
        if self._shipper is None:
            self._shipper = BackgroundShipper(self._execution.tracking_uri)
        return self._shipper


def _sessions(folder: Path) -> int:
    """How often it has been begun or gone on with."""
    return sum(event["name"] == "resume" for event in read(folder / JOURNAL).events)
