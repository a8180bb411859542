"""What nobody refers to any more: executions beyond the newest, entries of the memo that none of the others uses, the
sweeps and runs that only such entries are of, and what killed processes have left.

It is found again under the memo's lock before anything goes, and put away by a new name first: a process that begins
meanwhile sees it whole or not at all, and what is left where this one is killed, the next one finds.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from r2m.errors import UserError
from r2m.files import locked, removed
from r2m.line_file import is_held
from r2m.pipelines.child import TASK
from r2m.pipelines.execution import Kept, executions, maker, pipelines_folder
from r2m.pipelines.lease import held_elsewhere
from r2m.pipelines.memo import Entry, Memo, parts_of, work_name
from r2m.runs.find import sweep_runs
from r2m.runs.folder import DRIVER, JOURNAL, run_folder
from r2m.runs.journal import Journal
from r2m.sweeps.sweep import sweep_folder

GONE = ".gone"
CLOCKS_APART_S = 3600.0  # of machines that share a storage


@dataclass(frozen=True)
class Garbage:
    """`executions`: their folders. `steps`: those of their steps' runs, and of executions that are gone. `halves`:
    names of entries that nobody is making, with what there is of them. `sweeps`: by name, with their runs'. `gone`:
    put away before, by a process that was killed."""

    executions: frozenset[Path] = frozenset()
    steps: frozenset[Path] = frozenset()
    entries: dict[str, Entry] = field(default_factory=dict)
    halves: dict[str, list[Path]] = field(default_factory=dict)
    sweeps: dict[str, list[str]] = field(default_factory=dict)
    gone: frozenset[Path] = frozenset()

    def parts(self, storage: str) -> Iterator[tuple[str, list[str], int]]:
        """(what, names, bytes on the disk) of each part that there is."""
        runs = [name for names in self.sweeps.values() for name in names]
        left = [path for paths in self.halves.values() for path in paths] + sorted(self.gone)
        alone = sorted(step for step in self.steps if step.with_name(maker_run(step)) not in self.executions)
        for what, names, folders in (
            ("executions", sorted(path.name for path in self.executions), [*self.executions, *self.steps - {*alone}]),
            ("results of steps", sorted(self.entries), [entry.folder for entry in self.entries.values()]),
            ("sweeps", sorted(self.sweeps), [p for name in self.sweeps for p in _of_sweep(storage, name)]),
            ("runs", sorted(runs), [run_folder(storage, name) for name in runs]),
            ("left by killed processes", [path.name for path in [*alone, *left]], [*alone, *left]),
        ):
            if names:
                yield what, names, sum(map(_size, folders))

    def both(self, other: Garbage) -> Garbage:
        return replace(
            self,
            executions=self.executions & other.executions,
            steps=self.steps & other.steps,
            entries={name: entry for name, entry in self.entries.items() if name in other.entries},
            halves={name: paths for name, paths in self.halves.items() if name in other.halves},
            sweeps={name: runs for name, runs in self.sweeps.items() if name in other.sweeps},
        )


def find_garbage(storage: str, keep: int, name: str | None = None) -> Garbage:
    """What goes where the newest `keep` executions of each pipeline stay, or of the pipeline `name`, and all of the
    others'. One that a process is at stays in any case, with all that was used since it began."""
    memo, every = Memo(storage), executions(storage)
    at_work = [each for each in every if each.running or _elsewhere(storage, each)]
    old = [each for each in _beyond(every, keep, name) if each not in at_work]
    stay = [each for each in every if each not in old]
    since = min((each.since for each in at_work), default=float("inf")) - CLOCKS_APART_S
    used = {entry for each in stay for entry in each.entries}
    open_ = [each for each in stay if each.state not in ("finished", "skipped")]
    unfinished = [(each, event) for each in open_ for event in each.steps.values()]
    wanted = {(e["use"], e.get("key")) for _, e in unfinished}
    begun = {work_name(each.name, e["step"], e.get("key") or "") for each, e in unfinished}

    entries = memo.entries()
    kept = [
        entry for entry in entries
        if entry.name in used or entry.used >= since or (entry.use, entry.key) in wanted
        or (name is not None and maker(entry.made_by)[0] != name)
    ]  # fmt: skip
    named = {run for entry in kept for run in entry.named()}
    kept += [entry for entry in entries if entry not in kept and entry.use == "run" and entry.named("runs") & named]
    named |= {run for entry in kept for run in entry.named()}
    gone = {entry.name: entry for entry in entries if entry not in kept}

    folders = [path for path in pipelines_folder(storage).glob("*") if maker(path.name) != ("", "")]
    there = {each.folder.name for each in stay}
    steps = [path for path in folders if maker_run(path) not in there and name in (None, maker(path.name)[0])]
    away = [entry for path in memo.gone() if (entry := memo.read(path.name))]
    sweeps = {run for entry in [*gone.values(), *away] for run in entry.named("sweeps")}
    sweeps |= {sweep for path in steps for sweep in _begun(storage, path)}
    return Garbage(
        executions=frozenset(each.folder for each in old),
        steps=frozenset(steps),
        entries=gone,
        halves={half: paths for half, paths in memo.halves().items() if parts_of(half)[:2] not in wanted},
        sweeps=dict(_free(storage, sweeps, named, begun)),
        gone=frozenset(_put_away_before(storage, memo)),
    )


def remove_garbage(storage: str, shown: Garbage, keep: int, name: str | None = None) -> Garbage:
    """Remove what is garbage of that still; what was."""
    memo = Memo(storage)
    with locked(lock := memo.folder / ".gc.lock"):
        with memo.steady():
            garbage = find_garbage(storage, keep, name).both(shown)
            for entry in garbage.entries.values():
                memo.put_away(entry)
            for folder in garbage.executions:
                with suppress(UserError), Journal(folder / JOURNAL):  # of one that has just begun again
                    _put_away(folder)
        for sweep, runs in garbage.sweeps.items():
            for folder in [*(run_folder(storage, run) for run in runs), *_of_sweep(storage, sweep)]:
                removed(_put_away(folder))
        for half in garbage.halves:
            memo.clear(half)
        for folder in garbage.steps:
            if not folder.with_name(maker_run(folder)).exists():
                removed(folder)
        for folder in [*_put_away_before(storage, memo), lock]:
            removed(folder)
    return garbage


def maker_run(step: Path) -> str:
    """Of a step's folder: its execution."""
    return step.name.rpartition(".")[0]


def _beyond(every: Collection[Kept], keep: int, name: str | None) -> list[Kept]:
    names = {each.name for each in every} if name is None else {name}
    of = [[each for each in every if each.name == one] for one in sorted(names)]
    return [each for mine in of for each in mine[: max(0, len(mine) - keep)]]


def _elsewhere(storage: str, each: Kept) -> bool:
    """A storage that machines share needn't have locks."""
    return each.view.status == "running" and held_elsewhere(storage, each.name)


def _free(storage: str, sweeps: Iterable[str], named: set[str], begun: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Of the sweeps those, with their runs, that nothing names and no process is at."""
    for sweep in sorted(sweeps):
        folder, views = sweep_folder(storage, sweep), sweep_runs(storage, sweep)
        files = [folder / JOURNAL, *(run_folder(storage, run) / file for run in views for file in (JOURNAL, DRIVER))]
        if named & {sweep, *views} or any(re.fullmatch(rf"{re.escape(one)}(-\d+)*", sweep) for one in begun):
            continue
        if (folder.exists() or views) and not any(file.is_file() and is_held(file) for file in files):
            yield sweep, list(views)


def _begun(storage: str, step: Path) -> Iterator[str]:
    """Sweeps that a step's run has begun, finished or not."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        name = json.loads((step / TASK).read_text(encoding="utf-8"))["work"]["name"]
        for folder in sweep_folder(storage, name).parent.glob(f"{name}*"):
            if re.fullmatch(rf"{re.escape(name)}(-\d+)*", folder.name):
                yield folder.name


def _of_sweep(storage: str, name: str) -> list[Path]:
    """Its page of the paper, if it has one, and last itself: by it the others are found."""
    folders = [Path(storage).absolute() / "paper" / name, sweep_folder(storage, name)]
    return [folder for folder in folders if folder.exists()]


def _put_away(folder: Path) -> Path:
    return folder.rename(folder.with_name(f".{folder.name}.{secrets.token_hex(4)}{GONE}"))


def _put_away_before(storage: str, memo: Memo) -> list[Path]:
    """The memo's last: they tell which sweeps go with them."""
    places = [Path(storage).absolute() / place for place in ("runs", "sweeps", "paper", "pipelines")]
    return [*(path for place in places for path in sorted(place.glob(f".*{GONE}"))), *memo.gone()]


def _size(folder: Path) -> int:
    """Bytes that it takes on the disk."""
    files = [folder, *folder.rglob("*")]
    return sum(512 * path.lstat().st_blocks for path in files if path.is_symlink() or path.exists())
