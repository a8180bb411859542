"""What steps have made, by the key of what determines it: `<storage>/memo/USE-KEY[-n]`, a folder for each.

It is there whole or not at all: the product's files, and entry.json with the outputs. A step that is made again
though it is there (`--force`) gets a folder of its own, -2, -3: what was made of the older one still refers to that.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2m.errors import UserError
from r2m.files import locked, made_whole, removed, write_whole
from r2m.pipelines.work import Sort, StepOutputs

ENTRY = "entry.json"
_KEPT = ".kept"  # ends the name of a folder for what a killed attempt leaves to the next one
_NAME = re.compile(r"([a-z-]+)-([0-9a-f]{12})(?:-(\d+))?")


@dataclass(frozen=True)
class Entry:
    """`outputs`: files and folders by their absolute paths. `made_by`: the run of the step that made it."""

    folder: Path
    outputs: StepOutputs
    made_by: str
    made: float  # seconds since the epoch
    seconds: float

    @property
    def name(self) -> str:
        return self.folder.name


class Memo:
    def __init__(self, storage: str) -> None:
        self.folder = Path(storage).absolute() / "memo"

    def find(self, use: str, key: str) -> Entry | None:
        """The newest of that key."""
        there = [number for number, folder in self._numbered(use, key) if (folder / ENTRY).is_file()]
        return self.read(_entry_name(use, key, max(there))) if there else None

    def new_name(self, use: str, key: str) -> str:
        """Of the entry that a step is to make: the first number that has none yet."""
        there = {number for number, folder in self._numbered(use, key) if (folder / ENTRY).is_file()}
        return _entry_name(use, key, max(there, default=0) + 1)

    def read(self, name: str) -> Entry | None:
        """None where there is none."""
        folder = self.folder / name
        try:
            tree = json.loads((folder / ENTRY).read_text(encoding="utf-8"))
            outputs = {key: _placed(value, folder, tree["sorts"].get(key)) for key, value in tree["outputs"].items()}
            return Entry(folder, outputs, tree["made_by"], tree["made"], tree["seconds"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(f"{folder / ENTRY}: not an entry ({error}); remove its folder") from None

    def entries(self) -> list[Entry]:
        """All, by name."""
        folders = sorted(self.folder.glob("*")) if self.folder.is_dir() else []
        found = [self.read(path.name) for path in folders if _NAME.fullmatch(path.name)]
        return [entry for entry in found if entry is not None]

    @contextmanager
    def making(self, name: str) -> Iterator[tuple[Path, Path] | None]:
        """A new folder for the product, and the one that is kept between attempts. None where the entry is there: of
        those who want to make it at the same time, one does. `write` makes it an entry; else nothing stays of it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / f".{name}.lock"):
            if (self.folder / name / ENTRY).is_file():
                yield None
                return
            kept = self.folder / f".{name}{_KEPT}"
            kept.mkdir(exist_ok=True)
            with made_whole(self.folder / name, self.folder / f".{name}.partial") as partial:
                partial.mkdir()
                yield partial, kept
                if not (partial / ENTRY).is_file():
                    removed(partial)
            removed(kept)

    def remove(self, entry: Entry) -> None:
        with suppress(OSError):  # first: without it, it is no entry
            (entry.folder / ENTRY).unlink()
        removed(entry.folder)
        removed(self.folder / f".{entry.name}.lock")

    def _numbered(self, use: str, key: str) -> Iterator[tuple[int, Path]]:
        for folder in self.folder.glob(f"{use}-{key}*"):
            found = _NAME.fullmatch(folder.name)
            if found and found[1] == use and found[2] == key:
                yield int(found[3] or 1), folder


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


def number_of(entry: str) -> int:
    """Of an entry's name: 1, or what it was made for again."""
    found = _NAME.fullmatch(entry)
    return int(found[3] or 1) if found else 1


def _entry_name(use: str, key: str, number: int) -> str:
    return f"{use}-{key}" + (f"-{number}" if number > 1 else "")
