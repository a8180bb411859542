"""What steps have made, by the key of what determines it: `<storage>/memo/USE-KEY[-n]`, a folder for each.

It is there whole or not at all: the product's files, and entry.json with the outputs. A step that is made again
though it is there (`--force`) gets a folder of its own, -2, -3: what was made of the older one still refers to that.
Beside them lie, hidden, what is being made (….partial), what a killed attempt leaves to the next one (….kept), locks
(….lock), and what is being removed (….gone).
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2m.files import locked, made_whole, removed, synced, write_whole
from r2m.pipelines.work import Sort, StepOutputs

ENTRY = "entry.json"
_PARTIAL, _KEPT, _LOCK, _GONE = ".partial", ".kept", ".lock", ".gone"
_NAME = re.compile(r"([a-z-]+)-([0-9a-f]{12})(?:-(\d+))?")


@dataclass(frozen=True)
class Entry:
    """`outputs`: files and folders by their absolute paths. `made_by`: the run of the step that made it."""

    folder: Path
    outputs: StepOutputs
    made_by: str
    made: float  # seconds since the epoch
    used: float  # when a step last went on with it, or made it
    seconds: float
    sorts: Mapping[str, Sort]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def use(self) -> str:
        """The kind of the step that made it; run: one of a train step's."""
        return parts_of(self.name)[0]

    @property
    def key(self) -> str:
        return parts_of(self.name)[1]

    def named(self, *outputs: str) -> set[str]:
        """The runs and sweeps that it refers to, in these outputs or in all of them."""
        lists = [v for key, v in self.outputs.items() if self.sorts.get(key) == "runs" and key in (outputs or [key])]
        return {name for names in lists for name in names}


class Memo:
    def __init__(self, storage: str) -> None:
        self.folder = Path(storage).absolute() / "memo"

    def find(self, use: str, key: str) -> Entry | None:
        """The newest of that key."""
        newest_first = sorted(self._numbered(use, key), reverse=True)
        return next((entry for _, folder in newest_first if (entry := self.read(folder.name))), None)

    def take(self, use: str, key: str) -> Entry | None:
        """As `find`, for a step that goes on with it, which is written down: see r2m.pipelines.gc."""
        with self.steady():
            found = self.find(use, key)
            if found is not None:
                os.utime(found.folder / ENTRY)
            return found

    @contextmanager
    def steady(self) -> Iterator[None]:
        """No entry is taken or put away meanwhile by another process."""
        with locked(self.folder / _LOCK):
            yield

    def new_name(self, use: str, key: str) -> str:
        """Of the entry that a step is to make: the first number that has none yet."""
        there = {number for number, folder in self._numbered(use, key) if (folder / ENTRY).is_file()}
        return _entry_name(use, key, max(there, default=0) + 1)

    def read(self, name: str) -> Entry | None:
        """None where there is none, or a power cut has left one that cannot be read."""
        folder = self.folder / name
        try:
            tree = json.loads((folder / ENTRY).read_text(encoding="utf-8"))
            sorts, used = tree["sorts"], (folder / ENTRY).stat().st_mtime
            outputs = {key: _placed(value, folder, sorts.get(key)) for key, value in tree["outputs"].items()}
            return Entry(folder, outputs, tree["made_by"], tree["made"], used, tree["seconds"], sorts)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None

    def entries(self) -> list[Entry]:
        """All, by name."""
        found = [self.read(path.name) for path in sorted(self.folder.glob("*")) if _NAME.fullmatch(path.name)]
        return [entry for entry in found if entry is not None]

    @contextmanager
    def making(self, name: str) -> Iterator[tuple[Path, Path] | None]:
        """A new folder for the product, and the one that is kept between attempts. None where the entry is there: of
        those who want to make it at the same time, one does. `write_entry` makes it an entry; else nothing stays of
        it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self.folder / f".{name}{_LOCK}"
        with locked(lock):
            if (self.folder / name / ENTRY).is_file():
                yield None
                removed(lock)
                return
            removed(self.folder / name)
            kept = self.folder / f".{name}{_KEPT}"
            kept.mkdir(exist_ok=True)
            with made_whole(self.folder / name, self.folder / f".{name}{_PARTIAL}") as partial:
                partial.mkdir()
                yield partial, kept
                if not (partial / ENTRY).is_file():
                    removed(partial)
                for path in partial.rglob("*"):  # before its name says that it is whole
                    synced(path)
            synced(self.folder)
            removed(kept)
            removed(lock)

    def put_away(self, entry: Entry) -> None:
        """At once no entry any more; the folder is among `gone` until it is removed."""
        entry.folder.rename(self.folder / f".{entry.name}.{secrets.token_hex(4)}{_GONE}")

    def gone(self) -> list[Path]:
        return sorted(self.folder.glob(f".*{_GONE}"))

    def halves(self) -> dict[str, list[Path]]:
        """By the name of the entry that is not there: what killed processes, or those at work, have of it."""
        found: dict[str, list[Path]] = {}
        for path in sorted(self.folder.glob("*")):
            name = path.name.removesuffix(path.suffix) if path.suffix in (_PARTIAL, _KEPT, _LOCK) else path.name
            name = name.removeprefix(".")
            if _NAME.fullmatch(name) and (path.name != name or self.read(name) is None):
                found.setdefault(name, []).append(path)
        return found

    def clear(self, name: str) -> bool:
        """Remove the halves of that name, unless a process is at work on it."""
        lock = self.folder / f".{name}{_LOCK}"
        try:
            with locked(lock, wait=False):
                for path in self.halves().get(name, []):
                    removed(path)
                return True
        except BlockingIOError:
            return False

    def _numbered(self, use: str, key: str) -> Iterator[tuple[int, Path]]:
        for folder in self.folder.glob(f"{use}-{key}*"):
            if parts_of(folder.name)[:2] == (use, key):
                yield parts_of(folder.name)[2], folder


def write_entry(folder: Path, outputs: StepOutputs, sorts: Mapping[str, Sort], made_by: str, seconds: float) -> None:
    """Make the folder of a product an entry. Paths in `outputs` lie in it."""
    inside = {
        key: str(Path(value).relative_to(folder)) if sorts.get(key) in ("file", "folder") else value
        for key, value in outputs.items()
    }
    tree = {"outputs": inside, "sorts": dict(sorts), "made_by": made_by, "made": time.time(), "seconds": seconds}
    write_whole(folder / ENTRY, json.dumps(tree, indent=1, allow_nan=False))


def _placed(value: Any, folder: Path, sort: str | None) -> Any:
    return str(folder / value) if sort in ("file", "folder") else value


def parts_of(entry: str) -> tuple[str, str, int]:
    """Of an entry's name: use, key, and 1 or the number that it was made for again."""
    found = _NAME.fullmatch(entry)
    return (found[1], found[2], int(found[3] or 1)) if found else ("", "", 1)


def work_name(pipeline: str, step: str, key: str, number: int = 1) -> str:
    """Of the sweeps and runs that a step makes for an entry of that key and number."""
    return f"{pipeline}-{step}-{key[:8]}" + (f"-{number}" if number > 1 else "")


def _entry_name(use: str, key: str, number: int) -> str:
    return f"{use}-{key}" + (f"-{number}" if number > 1 else "")
