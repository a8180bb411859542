"""Executions, results, sweeps and runs made by hand: their journals and folders without what makes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from r2m.pipelines.execution import Execution, begin_step, open_execution, tick_of
from r2m.pipelines.memo import Memo, parts_of, write_entry
from r2m.pipelines.schema import Pipeline
from r2m.pipelines.work import Where
from r2m.runs.journal import Journal
from tests.made_runs import MadeRuns

SFT = "sft-0123456789ab"
OLD = 1000.0  # seconds since the epoch


class MadeExecutions:
    def __init__(self, storage: Path) -> None:
        self.storage, self.memo, self.runs = storage, Memo(str(storage)), MadeRuns(storage)

    def open(self, name: str, day: int) -> Execution:
        """Of one step, s, on that day of December."""
        pipeline = Pipeline.model_validate({"name": name, "steps": {"s": {"use": "sft", "recipe": "forum"}}})
        return open_execution(pipeline, tick_of(f"2026-12-{day:02}T03:00Z"), Where(str(self.storage)))

    def execution(
        self, day: int, *entries: str, name: str = "night", end: str = "finished", state: str = "cached",
        key: str = "", **fields: Any,
    ) -> Execution:  # fmt: skip
        """`entries`: those that its step used. `key`: of one that it was making."""
        execution = self.open(name, day)
        begin_step(execution, "s", {})
        with Journal(execution.journal) as journal:
            journal.event("resume")
            for entry in entries:
                use, of, _ = parts_of(entry)
                facts = {"entry": entry, "made_by": f"{execution.run_id}.s", "seconds": 61.0}
                journal.event("step", step="s", use=use, state=state, key=of, **facts)
            if key:
                journal.event("step", step="s", use="train", state="running", key=key, attempt=1)
            if end != "running":
                journal.event(end, **fields)
        return execution

    def entry(self, name: str, pipeline: str = "night", used: float = OLD, **lists: list[str]) -> str:
        """`lists`: outputs that name runs or sweeps."""
        with self.memo.making(name) as made:
            assert made is not None
            (made[0] / "weights").write_bytes(b"x" * 10_000)
            made_by = f"{pipeline}-20261201T0300Z-abcdef.s"
            outputs: dict[str, Any] = {"file": str(made[0] / "weights"), **lists}
            write_entry(made[0], outputs, {"file": "file"} | dict.fromkeys(lists, "runs"), made_by, 61.0)  # type: ignore
        os.utime(self.memo.folder / name / "entry.json", (used, used))
        return name

    def sweep(self, name: str, *runs: str) -> str:
        for run in runs:
            self.runs.run(run, [0.1], start={"parent": name})
        with Journal(self.storage / "sweeps" / name / "journal.jsonl") as journal:
            facts = {"task": "forum", "policy": "p", "config": {}, "versions": {}, "git": {}}
            journal.start(run_id=name, config_hash="c", data_hash="d", datasets=[], **facts)  # type: ignore
            journal.event("finished")
        return name

    def there(self, place: str) -> list[str]:
        """Names of what is there, hidden too, but for the lock of all."""
        return sorted(p.name for p in (self.storage / place).glob("*") if p.name not in (".lock", "digests.json"))
