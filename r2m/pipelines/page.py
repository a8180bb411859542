"""An execution's page, from its journal and from what its steps have made."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from r2m.errors import UserError
from r2m.files import write_whole
from r2m.pipelines.memo import Entry, Memo
from r2m.reports.pipeline_page import pipeline_html
from r2m.results.comparison import Comparison, compare_runs
from r2m.results.morning import Morning, morning
from r2m.results.table import Result
from r2m.runs.find import journals
from r2m.runs.folder import JOURNAL
from r2m.runs.journal import JournalView, read
from r2m.tracking.pipeline_notes import PAGE_FILE

OF_SWEEPS = ("sweep-", "paper-")  # begin the names of entries whose runs are their sweeps'; train's have one each


def write_page(folder: Path) -> Path:
    """Of the execution in this folder, `<storage>/pipelines/<run_id>`; the page's file in it."""
    write_whole(folder / PAGE_FILE, pipeline_html(morning_of(folder)))
    return folder / PAGE_FILE


def morning_of(folder: Path) -> Morning:
    storage, view = folder.parents[1], read(folder / JOURNAL)
    memo = Memo(str(storage))
    last = {e["step"]: e for e in view.events if e["name"] == "step" and e.get("entry")}
    used = {name: entry for name, e in last.items() if (entry := memo.read(e["entry"]))}
    compared = [used[name] for name, e in last.items() if e["use"] == "compare" and name in used]
    return morning(
        view, list(_trained(storage, view.run_id, memo.entries())), _comparison(storage, compared[-1:])
    )  # fmt: skip


def _trained(storage: Path, run_id: str, entries: Iterable[Entry]) -> Iterable[JournalView]:
    """The runs that the execution's steps have made."""
    names: dict[str, None] = {}
    for entry in entries:
        if entry.made_by.rpartition(".")[0] == run_id:
            if entry.name.startswith("run-"):
                names |= dict.fromkeys(entry.outputs["runs"])
            elif entry.name.startswith(OF_SWEEPS):
                names |= dict.fromkeys(entry.outputs["sweeps"])
    return journals(storage, names)[0].values()


def _comparison(storage: Path, compared: Iterable[Entry]) -> Comparison | None:
    """Of the runs that a step has compared, as far as they are there; of several setups the first."""
    for entry in compared:
        with suppress(UserError, OSError, ValueError, LookupError):  # of runs that are gone, in part
            setup = json.loads(Path(entry.outputs["comparison"]).read_text(encoding="utf-8"))["setups"][0]
            views, _ = journals(storage, dict.fromkeys(entry.outputs["runs"]))
            return compare_runs([Result(v) for v in views.values()], setup["metric"], setup["baseline"])[0][0]
    return None
