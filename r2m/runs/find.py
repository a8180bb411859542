"""The journals of runs, found by the run's name or its sweep's."""

from collections.abc import Iterable
from pathlib import Path

from r2m.runs.folder import JOURNAL
from r2m.runs.journal import JournalView, find


def sweep_runs(storage: Path | str, sweep: str) -> dict[str, JournalView]:
    """The journals of the sweep's runs, by the run's name."""
    folders = (Path(storage).absolute() / "runs").glob(f"{sweep}-*")
    views = {folder.name: find(folder / JOURNAL) for folder in sorted(folders)}
    return {name: view for name, view in views.items() if view and view.start.get("parent") == sweep}


def journals(storage: Path | str, names: Iterable[str]) -> tuple[dict[str, JournalView], list[str]]:
    """The journals of runs and of sweeps' runs, in the order of the names, and the names that have none.

    Raises UserError for a journal with a broken line.
    """
    views: dict[str, JournalView] = {}
    missing = []
    for name in names:
        if Path(name).name != name or len(name) > 255:  # a path: nothing outside the storage is read
            missing.append(name)
        elif (Path(storage) / "sweeps" / name / JOURNAL).is_file():
            views |= sweep_runs(storage, name)
        elif view := find(Path(storage) / "runs" / name / JOURNAL):
            views[name] = view
        else:
            missing.append(name)
    return views, missing
