"""Digests of what a step reads: files, models' folders, runs. What has the same content is the same input, wherever
it lies."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from r2m.config import Config, digest
from r2m.config.paths import LOCAL_OR_HUB
from r2m.files import write_whole
from r2m.runs.folder import JOURNAL, run_folder
from r2m.stages.prepare import CACHE_VERSION

NO_CONTENT = ("report.json", "finished")  # beside a model: where it is from, and that it is whole
CACHE = "digests.json"
WORTH_KEEPING = 2**20  # bytes: of smaller files no digest is kept


class Contents:
    """Digests of large files are kept in `folder`, with size and time of change; where these differ, made again."""

    def __init__(self, storage: str, folder: Path) -> None:
        self.storage, self._path = storage, folder / CACHE
        self._known: dict[str, list[Any]] = {}
        with suppress(OSError, ValueError):
            self._known = json.loads(self._path.read_text(encoding="utf-8"))
        self._new = False

    def place(self, name: str | None) -> str | None:
        """Of a local file or folder; an id on the hub stands for itself: what it holds is not looked at."""
        if name is None or not os.path.isabs(name):
            return name
        path = Path(name)
        if path.is_dir():
            files = [p for p in sorted(path.rglob("*")) if p.is_file() and _counts(p.relative_to(path))]
            return digest([[str(p.relative_to(path)), self._file(p)] for p in files])
        return self._file(path) if path.is_file() else f"absent {path.name}"

    def run(self, name: str) -> str:
        """Of a run: its journal, which no one writes to any more once it has finished."""
        return f"run {self._file(run_folder(self.storage, name) / JOURNAL)}"

    def config(self, config: Config) -> dict[str, Any]:
        """What determines a run's result: its settings, with contents in the place of what they name."""
        tree = config.determines()
        for key in LOCAL_OR_HUB:
            section, name = key.split(".")
            if name in tree[section]:
                tree[section][name] = self.place(tree[section][name])
        members = tree["reward"].get("members")
        if isinstance(members, list):
            tree["reward"]["members"] = [self.place(member) for member in members]
        own = config.task.kind == "forum" and None in (config.policy.model, config.reward.model)
        return tree | ({"models": CACHE_VERSION} if own else {})

    def keep(self) -> None:
        """Write down what was worked out."""
        if self._new:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, json.dumps(self._known))
            self._new = False

    def _file(self, path: Path) -> str:
        try:
            stat = path.stat()
        except OSError:
            return "absent"
        seen = [stat.st_size, stat.st_mtime_ns]
        known = self._known.get(str(path))
        if known and known[:2] == seen:
            return known[2]
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()[:24]
        if stat.st_size >= WORTH_KEEPING:
            self._known[str(path)], self._new = [*seen, found], True
        return found


def _counts(path: Path) -> bool:
    return path.name not in NO_CONTENT and not any(part.startswith(".") for part in path.parts)
