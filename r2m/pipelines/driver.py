"""Running an execution: each step whose result is not there yet in a process of its own, side by side as far as there
is room, and again where it fails."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial

from rich.console import Console

from r2m.errors import UserError, reason_of
from r2m.pipelines.books import Books
from r2m.pipelines.contents import Contents
from r2m.pipelines.execution import Execution
from r2m.pipelines.memo import Entry, Memo, parts_of, work_name
from r2m.pipelines.page import write_page
from r2m.pipelines.process import Process, start_process
from r2m.pipelines.room import Room
from r2m.pipelines.spec import check_forced, graph, key_of, kind_of, step_settings
from r2m.pipelines.steps.promote import verdict_of
from r2m.pipelines.work import Kind, StepOutputs
from r2m.runs.journal import Journal, read
from r2m.training.driver import on_signal

LOOK_S = 0.2


@dataclass
class _State:
    """Of a step. `name`: waiting, running, cached, done, failed, blocked or stopped."""

    name: str = "waiting"
    reason: str = ""
    attempt: int = 0
    outputs: StepOutputs = field(default_factory=dict)
    not_before: float = 0.0  # monotonic: of the next attempt
    began: float = 0.0
    process: Process | None = None
    settings: dict[str, object] = field(default_factory=dict)  # of its kind, with what the steps before it made
    key: str = ""
    entry: str = ""  # the name of the one that it makes


def run_execution(
    execution: Execution, *, force: Collection[str] = (), only: Collection[str] = (), console: Console | None = None,
    lost: Callable[[], bool] = lambda: False,
) -> str:  # fmt: skip
    """Bring all steps up to date, or `only` some and what they need: finished, failed or stopped.

    `force`: steps that are run though their results are there. `lost`: whether somebody else has taken it over.

    One that has finished stays as it is, unless something is forced. Raises UserError where another process is at it.
    """
    with Journal(execution.journal) as journal:
        books, view = Books(execution, journal), read(execution.journal)
        console = console or Console(stderr=True, markup=False)
        there = {event["step"] for event in view.events if event["name"] == "step"}
        if view.status == "finished" and there >= {*(only or execution.pipeline.steps)} and not force:
            if not books.shipped:  # somebody ended the process that had finished it
                _close(execution, books, console)
            return "finished"
        return _Session(execution, books, force, only, console, lost).run()


class _Session:
    def __init__(
        self, execution: Execution, books: Books, force: Collection[str], only: Collection[str], console: Console,
        lost: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.execution, self.books, self.console, self.lost = execution, books, console, lost
        self.pipeline, self.where = execution.pipeline, execution.where
        self.needs = _needed(graph(self.pipeline), only)
        check_forced(force, self.needs)
        self.force = set(force)
        self.forced = books.forced
        self.memo = Memo(self.where.storage)
        self.contents = Contents(self.where.storage, self.memo.folder)
        self.states = {name: _State() for name in self.needs}
        self.kinds: dict[str, Kind] = {name: kind_of(self.pipeline, name) for name in self.needs}
        self.room = Room(self.where.address)
        self.asked = 0  # how often to stop
        self.began = time.monotonic()

    def run(self) -> str:
        self.books.event("resume", **({"force": sorted(self.force)} if self.force else {}))
        with on_signal(self._ask_to_stop):
            while self._look():
                time.sleep(LOOK_S)
        return self._end()

    def _look(self) -> bool:
        """At all of them, once; whether there is more to wait for."""
        if not self.asked and self.lost():
            self.console.print("another process has taken this pipeline over")
            self._ask_to_stop()
        for name, state in self.states.items():
            if state.process is not None:
                self._follow(name, state, state.process)
            elif state.name == "waiting" and not self.asked:
                self._advance(name, state)
        names = {state.name for state in self.states.values()}
        return "running" in names or ("waiting" in names and not self.asked)

    def _advance(self, name: str, state: _State) -> None:
        """A step whose turn may have come."""
        before = {other: self.states[other] for other in self.needs[name]}
        if bad := next((other for other, s in before.items() if s.name in ("failed", "blocked")), None):
            self._settle(name, state, "blocked", f"it needs {bad}")
            return
        if any(s.name not in ("cached", "done") for s in before.values()) or time.monotonic() < state.not_before:
            return
        if not state.key:
            try:
                self._look_up(name, state, {n: s.outputs for n, s in before.items()})
            except (UserError, OSError) as error:  # what the steps before it have made is nothing for it
                self._settle(name, state, "failed", reason_of(error))
                return
        if state.name == "waiting" and self.room.take(name, self.kinds[name]):
            self._start(name, state)

    def _look_up(self, name: str, state: _State, outputs: dict[str, StepOutputs]) -> None:
        """Whether its result is there, once those of the steps before it are."""
        settings = step_settings(self.pipeline, name, outputs)
        use = self.pipeline.steps[name].use
        key = key_of(use, settings, self.contents, self.pipeline.name)
        self.contents.keep()
        found = self.memo.take(use, key)
        here = found is not None and found.made_by == self.execution.step_folder(name).name
        if found is not None and name in self.force and not (here and found.made > self.forced.get(name, math.inf)):
            found = None
        state.settings, state.key = settings.model_dump(mode="json", exclude_unset=True), key
        if found is None:
            state.entry = self.memo.new_name(use, key)
        else:  # made here, before somebody ended this process, or by another execution
            self._settle(name, state, "done" if here else "cached", entry=found)

    def _start(self, name: str, state: _State) -> None:
        state.attempt, state.name, state.began = state.attempt + 1, "running", time.monotonic()
        folder = self.books.begin_run(name, state.settings, state.attempt)
        _, _, number = parts_of(state.entry)
        work = {
            "storage": self.where.storage, "tracking_uri": self.where.tracking_uri, "address": self.where.address,
            "name": work_name(self.pipeline.name, name, state.key, number), "key": state.key,
            "pipeline": self.pipeline.name, "made_by": folder.name, "again": name in self.force,
        }  # fmt: skip
        use = self.pipeline.steps[name].use
        self._say(name, f"attempt {state.attempt}" if state.attempt > 1 else "started")
        self.books.step(name, "running", key=state.key, attempt=state.attempt)
        task = {"step": name, "use": use, "settings": state.settings, "entry": state.entry, "work": work}
        state.process = start_process(folder, task)

    def _follow(self, name: str, state: _State, process: Process) -> None:
        for line in process.news():
            self._say(name, line)
        code = process.code()
        if code is None:
            return
        state.process = None
        self.room.give_back(name)
        found = self.memo.read(state.entry)
        if code == 0 and found is not None:
            self._settle(name, state, "done", entry=found)
        elif self.asked or process.stopped(code):
            self.asked = self.asked or 1
            self._settle(name, state, "stopped", "to be gone on with")
        elif process.by_input(code) or state.attempt > self._retries(name):
            self._settle(name, state, "failed", process.reason(code))
        else:
            wait = self.pipeline.backoff_s * 2 ** (state.attempt - 1)
            state.name, state.not_before = "waiting", time.monotonic() + wait
            self._say(name, f"failed: {process.reason(code)}; again in {wait:g} s")
            facts = {"reason": process.reason(code), "again_in_s": wait}
            self.books.step(name, "failed", key=state.key, attempt=state.attempt, **facts)

    def _retries(self, name: str) -> int:
        own = self.pipeline.steps[name].retries
        return self.pipeline.retries if own is None else own

    def _settle(self, name: str, state: _State, how: str, reason: str = "", entry: Entry | None = None) -> None:
        state.name, state.reason = how, reason
        facts: dict[str, object] = {"reason": reason} if reason else {}
        if entry is not None:
            state.outputs = entry.outputs
            facts = {"entry": entry.name, "made_by": entry.made_by, "seconds": entry.seconds}
        took = f"done, {time.monotonic() - state.began:.0f} s" if state.attempt else "done before"
        said = {"cached": f"cached: {facts.get('made_by')}", "done": took}
        self._say(name, said.get(how, f"{how}: {reason}"))
        self.books.step(name, how, key=state.key, attempt=state.attempt, **facts)
        if entry is not None and self.pipeline.steps[name].use == "promote":
            said_of = verdict_of(entry.outputs)
            self.books.event("verdict", step=name, **said_of)
            self._say(name, f"as decided then: {said_of['text']}" if how == "cached" else said_of["text"])
        if state.attempt or (entry is not None and self.books.is_open(name)):
            made_of = {"sweeps": state.outputs["sweeps"]} if "sweeps" in state.outputs else {}
            seconds = time.monotonic() - state.began if state.attempt or entry is None else entry.seconds
            self.books.end_run(name, how, seconds, **({"reason": reason} if reason else made_of))

    def _end(self) -> str:
        failed = {name: state.reason for name, state in self.states.items() if state.name == "failed"}
        states = [state.name for state in self.states.values()]
        end = partial(self.books.end, states=states, seconds=time.monotonic() - self.began)
        if failed:
            name, reason = next(iter(failed.items()))
            end("failed", reason=f"{name}: {reason}")
        elif self.asked:
            end("stopped", reason="asked to stop")
        else:
            end("finished")
        _close(self.execution, self.books, self.console)
        return "failed" if failed else "stopped" if self.asked else "finished"

    def _ask_to_stop(self) -> None:
        """The first Ctrl-C asks the steps to stop, the second ends them."""
        self.asked += 1
        for state in self.states.values():
            if state.process is not None:
                state.process.stop(at_once=self.asked > 1)
        self.console.print("stopping; once more to abort at once" if self.asked == 1 else "aborting")

    def _say(self, name: str, line: str) -> None:
        self.console.print(f"{name}: {line}", soft_wrap=True, highlight=False)


def _close(execution: Execution, books: Books, console: Console) -> None:
    """The page and MLflow. What becomes of them does not change what the execution has come to."""
    page = []
    try:
        page = [write_page(execution.folder)]
    except OSError as error:  # a full disk, as a rule
        console.print(f"the page was not written: {reason_of(error)}", soft_wrap=True, highlight=False)
    if trouble := books.close(page):
        console.print(f"MLflow did not take everything ({trouble}); the journals have it", soft_wrap=True)


def _needed(needs: dict[str, tuple[str, ...]], only: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Of all steps, or of some and whatever they need."""
    wanted = new = set(only or needs)
    while new:
        new = {other for name in new for other in needs[name]} - wanted
        wanted = wanted | new
    return {name: of for name, of in needs.items() if name in wanted}
