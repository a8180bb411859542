"""`r2m sync`: what the journals of a run, or of a sweep with all of its runs, have and MLflow has not."""

from __future__ import annotations

from pathlib import Path

from r2m.errors import UserError, shown
from r2m.tracking.journal import JournalReader, Record
from r2m.tracking.mlflow_entities import RANKING
from r2m.tracking.mlflow_sink import Sink, default_tracking_uri

JOURNAL = "journal.jsonl"
ARTIFACTS = ("curves.png", "answer.json", "answer.png", "report.html", RANKING)  # those that are there


def sync(storage: Path | str, name: str) -> list[tuple[str, int]]:
    """Ship the sweep `name` and its runs, else the run `name`: for each its name and the metric points logged.

    Raises UserError where there is neither, and whatever MLflow raises.
    """
    runs, sweep = Path(storage) / "runs", Path(storage) / "sweeps" / name
    known = Path(name).name == name and len(name) < 256
    if known and (sweep / JOURNAL).is_file():
        starts = {path.parent: _start(path) for path in sorted(runs.glob(f"{name}-*/{JOURNAL}"))}
        starts = {folder: start for folder, start in starts.items() if start.get("parent") == name}
        uris = {folder: _uri(storage, start) for folder, start in starts.items()}
        uris = {sweep: next(iter(uris.values()), default_tracking_uri(storage))} | uris
    elif known and (runs / name / JOURNAL).is_file():
        uris = {runs / name: _uri(storage, _start(runs / name / JOURNAL))}
    else:
        there = sorted(
            path.parent.name for kind in (runs, sweep.parent) for path in kind.glob(f"[!.]*/{JOURNAL}")
        )
        raise UserError(f"NAME = {shown(name)}: not in {storage}; there are: {', '.join(there) or 'none'}")
    return [(folder.name, _ship(uri, folder)) for folder, uri in uris.items()]


def _start(journal: Path) -> Record:
    """Its start record, {} where it has none yet."""
    return next(iter(JournalReader(journal).new_records()), {})


def _uri(storage: Path | str, start: Record) -> str:
    run = start["config"]["run"] if start else {}
    return run.get("tracking_uri") or default_tracking_uri(storage)


def _ship(uri: str, folder: Path) -> int:
    return Sink(uri, folder).ship([path for name in ARTIFACTS if (path := folder / name).is_file()])
