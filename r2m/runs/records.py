"""A journal's records as lines of bytes, and back."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from r2m.errors import UserError

Record = dict[str, Any]

RECORD_FIELDS: dict[str, dict[str, Any]] = {  # of a record by its kind, that no reader can do without
    "start": {"run_id": str, "config": dict},
    "round": {"step": int, "metrics": dict},
    "samples": {"step": int, "samples": list},
    "event": {"name": str},
}


def record_line(record: Record) -> bytes:
    """One line of strict JSON."""
    return json.dumps(_strict(record), allow_nan=False).encode() + b"\n"


def whole_lines(data: bytes) -> bytes:
    """Without a torn end: what follows the last newline, which may be being written, and lines with NULs before it
    (a record has none: JSON escapes them)."""
    end = data.rfind(b"\n") + 1
    while end and b"\0" in data[(start := data.rfind(b"\n", 0, end - 1) + 1) : end]:
        end = start
    return data[:end]


def decoded(line: bytes, path: Path, number: int) -> Record:
    """The record of a line. Raises UserError, with the file and the line's number, where it holds none."""
    try:
        record = json.loads(line, object_hook=_loose)
        fields = {"time": int | float, "kind": str} | RECORD_FIELDS.get(record["kind"], {})
        wrong = [name for name, kind in fields.items() if not isinstance(record[name], kind)]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UserError(f"journal = {str(path)!r}, line {number}: not a record") from None
    if wrong:
        raise UserError(f"journal = {str(path)!r}, line {number}: not a record: {', '.join(wrong)}")
    return record


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        name = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return {"$numberDouble": name}
    if isinstance(value, dict):
        return {key: _strict(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(v) for v in value]
    return value


def _loose(tree: Record) -> Any:
    return float(tree["$numberDouble"]) if tree.keys() == {"$numberDouble"} else tree


def worked_s(records: Sequence[Record]) -> float:
    """Seconds that processes were at what a journal is of, up to the last record: pauses are left out, which end in
    the next process's first one."""
    return sum(
        later["time"] - earlier["time"]
        for earlier, later in pairwise(records)
        if later.get("name") not in ("torn-end", "resume")
    )


def last_of_steps(events: Sequence[Record]) -> dict[str, Record]:
    """Of a pipeline's execution: the last event of each step."""
    return {event["step"]: event for event in events if event["name"] == "step"}
