"""What an execution of a pipeline came to, for the page that is read in the morning: from its journal, those of runs
that it trained, and the comparison, as far as there is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r2m.results.alarms import alarms, raised
from r2m.results.comparison import Comparison
from r2m.results.readings import cost
from r2m.runs.journal import JournalView
from r2m.runs.records import Record, last_of_steps, worked_s

RAN, CACHED, FAILED, BLOCKED, WAITING = "done", "cached", "failed", "blocked", "waiting"  # states of a step


@dataclass(frozen=True)
class MorningStep:
    """`state`: done, cached, failed, blocked, stopped, running or waiting. `seconds`: that it took to make, and
    `made_by`: the run of the step that made it."""

    name: str
    use: str
    state: str
    seconds: float | None = None
    attempts: int = 0
    made_by: str = ""
    reason: str = ""


@dataclass(frozen=True)
class MorningVerdict:
    """Of a step that promotes. `conditions`: whether each holds, and its sentence. `made_by`: as of its step."""

    step: str
    text: str
    promoted: bool
    conditions: tuple[tuple[bool, str], ...] = ()


@dataclass(frozen=True)
class Morning:
    """`status`: as JournalView's. `seconds`: by the clock, of all sessions; `worker_s`, `trajectories`: of the runs
    that it trained itself. `alarm`: sentences."""

    pipeline: str
    run_id: str
    tick: str
    status: str
    reason: str
    steps: tuple[MorningStep, ...]
    verdicts: tuple[MorningVerdict, ...]
    seconds: float
    worker_s: float
    trajectories: int
    comparison: Comparison | None
    alarm: tuple[str, ...]

    def in_state(self, *states: str) -> list[MorningStep]:
        return [step for step in self.steps if step.state in states]

    @property
    def unchanged(self) -> bool:
        return len(self.in_state(CACHED)) == len(self.steps)

    @property
    def promoted(self) -> bool:
        """Here, not by the execution that something is cached of."""
        ran = {step.name for step in self.in_state(RAN)}
        return any(verdict.promoted and verdict.step in ran for verdict in self.verdicts)

    @property
    def headline(self) -> list[str]:
        """Sentences, the one that matters first."""
        said = self._ending()
        by = {step.name: step for step in self.steps}
        for verdict in self.verdicts:
            step = by.get(verdict.step)
            cached = step is not None and step.state == CACHED
            said.append(f"As decided by {step.made_by}: {verdict.text}" if step and cached else verdict.text)
        if not said:
            n, cached_steps = len(self.in_state(RAN)), len(self.in_state(CACHED))
            said.append(f"Finished: {n} step{'s' * (n != 1)} ran, {cached_steps} cached; nothing was to be promoted.")
        return said

    def _ending(self) -> list[str]:
        if self.status == "failed":
            failed = self.in_state(FAILED)
            why = [f"{step.name}: {step.reason or 'no reason is known'}" for step in failed] or [self.reason]
            blocked = self.in_state(BLOCKED)
            names = ", ".join(step.name for step in blocked)
            return [f"Failed: {'; '.join(why)}", *[f"Not run, since they need what failed: {names}."] * bool(blocked)]
        if self.status != "finished":
            left = ", ".join(step.name for step in self.steps if step.state not in (RAN, CACHED))
            return [f"{self.status.capitalize()}, not finished: {left} {'is' if ',' not in left else 'are'} left."]
        return [f"Nothing has changed: all of its {len(self.steps)} steps are cached."] * self.unchanged


def morning(
    execution: JournalView, trained: Sequence[JournalView] = (), comparison: Comparison | None = None
) -> Morning:
    """`trained`: the runs that this execution made, not those that it found."""
    events = execution.events
    last = last_of_steps(events)
    uses = {name: step.get("use", "") for name, step in execution.start["config"].get("steps", {}).items()}
    steps = tuple(_step(name, uses.get(name, ""), last.get(name, {})) for name in dict.fromkeys([*uses, *last]))
    ends = [e for e in events if e["name"] in ("failed", "stopped")]
    spent = [cost(view) for view in trained]
    return Morning(
        pipeline=execution.tags.get("r2m.pipeline", ""), run_id=execution.run_id,
        tick=execution.tags.get("r2m.tick", ""), status=execution.status,
        reason=str(ends[-1].get("reason", "")) if ends else "", steps=steps, verdicts=_verdicts(events),
        seconds=worked_s([execution.start, *events]), worker_s=sum(s for _, s in spent),
        trajectories=sum(n for n, _ in spent), comparison=comparison, alarm=_alarm(comparison, trained),
    )  # fmt: skip


def _step(name: str, use: str, event: Mapping[str, Any]) -> MorningStep:
    return MorningStep(
        name, event.get("use", use), event.get("state", WAITING), event.get("seconds"), event.get("attempt", 0),
        event.get("made_by", ""), event.get("reason", ""),
    )  # fmt: skip


def _verdicts(events: Sequence[Record]) -> tuple[MorningVerdict, ...]:
    """The last of each step."""
    found: dict[str, MorningVerdict] = {}
    for e in events:
        if e["name"] == "verdict":
            conditions = tuple((bool(held), str(said)) for held, said in e.get("conditions", ()))
            step = e.get("step", "")
            found[step] = MorningVerdict(step, e["text"], e["promoted"], conditions)
    return tuple(found.values())


def _alarm(comparison: Comparison | None, trained: Iterable[JournalView]) -> tuple[str, ...]:
    if comparison is not None:
        return tuple(raised([(row.arm.label, row.alarm) for row in comparison.rows]))
    by_arm: dict[str, list[JournalView]] = {}
    for view in trained:
        by_arm.setdefault(view.arm, []).append(view)
    return tuple(raised([(label, alarms(views)) for label, views in by_arm.items()]))
