"""The run's journal: one JSON object a line. It is the truth; MLflow and the reports are made from it.

Every line has "time" (seconds since the epoch) and "kind":

    start    first and once: run_id, task, policy, config, versions, git, config_hash, data_hash, datasets,
             and where they are given: experiment, parent, tags
    round    step, metrics: {"phase/name": float}
    samples  step, samples: [{prompt, response, reward, ...}]
    event    name ("resume", "checkpoint", "stopped", "pruned", "finished", "failed", ...) and its fields

What a killed writer or a power cut leaves after the last record is a torn end: a part of a line, or lines with NULs
where blocks never reached the disk. Readers leave it out; the next writer cuts it off and says so by an event,
"torn-end". A line that is no record anywhere else is refused.

Lines are strict JSON: a float that is not finite is written as MongoDB's extended JSON writes it,
{"$numberDouble": "NaN" | "Infinity" | "-Infinity"}, and read back as that float. A resumed run replays the
rounds since its last checkpoint, so a step may occur twice: the first one counts.

A sweep has a journal of its own: run_id is its name, config its file's tree, round k its k-th settled trial.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2m.config import tags_of
from r2m.errors import UserError
from r2m.line_file import LineFile
from r2m.runs.folder import is_name
from r2m.runs.records import Record, decoded, record_line, whole_lines

PATIENCE_S = 120.0  # that a process which still holds a journal is waited for

# Stopped: by a user, to go on with later. Pruned: by a sweep, for good. Skipped: a pipeline's tick that was given up.
ENDS = ("finished", "stopped", "pruned", "failed", "skipped")
STATUS_OF_EVENT = {name: name for name in ENDS} | {"resume": "running"}


class Journal(LineFile):
    """The one writer of a journal. Opening cuts off a torn end.

    Raises UserError where another process has the journal open, and OSError with the path where a line
    cannot be written (a full disk); the journal then still ends with its last whole line.
    """

    def __init__(self, path: Path | str) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, "journal", "run", lambda data: len(whole_lines(data)))
        if self.torn and self.started:
            try:
                self.event("torn-end", bytes=self.torn)
            except OSError:
                self.close()
                raise

    @property
    def started(self) -> bool:
        """Whether there is a start record: where there is, the run is to be resumed."""
        return self.size > 0

    def start(
        self,
        run_id: str,
        task: str,
        policy: str,
        config: Record,
        versions: dict[str, str],
        git: Record,
        config_hash: str,
        data_hash: str,
        datasets: list[Record],
        experiment: str | None = None,
        parent: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        """Say what the run is. `datasets`: a dict each of name, digest, source, rows, split, and left_out: a
        line on the rows that are not used, in the first where there are any.

        For MLflow: `experiment` (None: r2m/<task>/<policy>), `parent`, the run_id of the run in it that this
        one is a part of, and further tags.

        Raises UserError for a run_id that cannot name a folder, or a second start.
        """
        if not is_name(run_id):
            raise UserError(f"run_id = {run_id!r}: allowed are letters, digits, '_' and, later, '.' and '-'")
        if self.started:
            raise UserError(f"journal = {str(self.path)!r}: the run has started already; resume it")
        optional = {"experiment": experiment, "parent": parent, "tags": tags}
        self._append(
            "start", run_id=run_id, task=task, policy=policy, config=config, versions=versions, git=git,
            config_hash=config_hash, data_hash=data_hash, datasets=datasets,
            **{key: value for key, value in optional.items() if value is not None},
        )  # fmt: skip

    def round(self, step: int, metrics: dict[str, float]) -> None:
        self._append("round", step=step, metrics={key: float(value) for key, value in metrics.items()})

    def samples(self, step: int, samples: list[Record]) -> None:
        self._append("samples", step=step, samples=samples)

    def event(self, name: str, **fields: Any) -> None:
        self._append("event", name=name, **fields)

    def _append(self, kind: str, **fields: Any) -> None:
        assert self.started == (kind != "start"), "the first record, and no other, is the start"
        self.append(record_line({"time": time.time(), "kind": kind, **fields}))


class JournalReader:
    """Reads a journal as it grows, each whole line once."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.nuls = 0  # bytes of a torn end with NULs in it, which was left out of the last reading
        self._offset, self._lines = 0, 0

    def new_records(self) -> list[Record]:
        """The records added since the last call: [] where there is no file yet, or none are whole.

        Raises UserError, with file and line number, for a whole line that is no record.
        """
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = whole_lines(data)
        self.nuls = len(data) - len(whole) if b"\0" in data[len(whole) :] else 0
        lines = whole.split(b"\n")[:-1]
        records = [decoded(line, self.path, n) for n, line in enumerate(lines, self._lines + 1)]
        self._offset += sum(map(len, lines)) + len(lines)
        self._lines += len(lines)
        return records


@dataclass(frozen=True)
class JournalView:
    """A journal read whole. `rounds` and `samples` are by step, in order, first occurrence of a step."""

    start: Record
    rounds: dict[int, dict[str, float]]
    samples: dict[int, list[Record]]
    events: list[Record]
    nuls: int = 0  # bytes with NULs after its last record, left out

    @property
    def run_id(self) -> str:
        return self.start["run_id"]

    @property
    def tags(self) -> dict[str, str]:
        """Its start record's, with those that a journal of an older version lacks: see `tags`."""
        return tags(self.start)

    @property
    def arm(self) -> str:
        """As Config.arm has it, or "sweep"."""
        return self.tags["r2m.arm"]

    @property
    def seed(self) -> int:
        return int(self.tags["r2m.seed"])

    @property
    def status(self) -> str:
        """running, finished, stopped, pruned or failed."""
        return status(self.events)

    @property
    def judged(self) -> dict[int, list[float]]:
        """Step -> the held-out judgements of its evaluation, one a prompt."""
        return {e["step"]: e["scores"] for e in reversed(self.events) if e["name"] == "judged"}

    @property
    def alarm(self) -> Record | None:
        return alarm_of(self.events)

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of the rounds that have the metric."""
        points = [(step, metrics[key]) for step, metrics in self.rounds.items() if key in metrics]
        return [step for step, _ in points], [value for _, value in points]


def read(path: Path | str) -> JournalView:
    """A run's journal as it is now.

    Raises UserError for a broken line, no file, or a journal without a start record.
    """
    reader = JournalReader(path)
    return _view(reader.new_records(), reader)


def find(path: Path | str) -> JournalView | None:
    """As `read`, but None where there is no journal, or no whole line in it yet."""
    reader = JournalReader(path)
    records = reader.new_records()
    return _view(records, reader) if records else None


def _view(records: list[Record], reader: JournalReader) -> JournalView:
    if not records or records[0]["kind"] != "start":
        raise UserError(f"journal = {str(reader.path)!r}: no start record: not the journal of a run, or too early")
    rounds: dict[int, dict[str, float]] = {}
    samples: dict[int, list[Record]] = {}
    for record in records:
        if record["kind"] == "round":
            rounds.setdefault(record["step"], record["metrics"])
        elif record["kind"] == "samples":
            samples.setdefault(record["step"], record["samples"])
    events = [record for record in records if record["kind"] == "event"]
    in_order = dict(sorted(rounds.items())), dict(sorted(samples.items()))
    return JournalView(records[0], *in_order, events, reader.nuls)


def tags(start: Record) -> dict[str, str]:
    """A start record's tags. What a journal of an older version lacks follows from its settings."""
    return tags_of(start["config"]) | start.get("tags", {})


def status(events: list[Record]) -> str:
    """What the last event that changes it says: running, or one of ENDS."""
    changes = [STATUS_OF_EVENT[e["name"]] for e in events if e["name"] in STATUS_OF_EVENT]
    return changes[-1] if changes else "running"


def alarm_of(events: Sequence[Record]) -> Record | None:
    """The event: step, began (the round by the rule), checkpoint (the step of the last one kept up to there, or
    None), reason (a line), signals (name -> value). None where there was none."""
    return next((e for e in events if e["name"] == "alarm"), None)


def wait_until_free(journal: Path) -> None:
    """Wait for a process that a killed session, or a trial that failed, has left. Raises UserError where it stays."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return Journal(journal).close()
        except UserError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
