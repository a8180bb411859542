"""Verdicts on file: what a judge has said stays said, through crashes and over runs.

One JSON object a line, only ever appended:

    key         SHA-256 of judge, template, prompt, first and second response, in this order of the two
    judge       the judge's name
    preference  1 the first is better, 0 the second, 0.5 neither, null: an answer without a usable verdict
    reply       what the judge wrote
    whole       true: the reply was not cut off

Each line is on the disk before its verdict is used. Opening to write cuts off a torn last line; reading passes over
it. Of two lines with one key the first counts. A line with neither a preference nor `whole`, as earlier versions
wrote, may be a reply that was cut off: it counts as none, and is asked again.
"""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r2m.endpoint.judge_prompts import ResponsePair
from r2m.errors import UserError
from r2m.line_file import LineFile


@dataclass(frozen=True)
class Verdict:
    preference: float | None
    reply: str = ""


_LIMIT = re.compile(r"max_(?:completion_)?tokens (?:\d+|null)")
_START = b'{"key": "'  # of each line


def same_judge(judge: str) -> str:
    """The name without its limit on a reply's tokens, which takes no part in a verdict: what it cuts off is not kept,
    and what was whole under one limit need not be paid for under another. 256, the first one, stands for all."""
    return _LIMIT.sub("max_tokens 256", judge, count=1)


def verdict_key(judge: str, template: str, comparison: ResponsePair) -> str:
    parts = [same_judge(judge), template, *comparison]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read_verdicts(path: Path | str) -> dict[str, Verdict]:
    """Key -> verdict. Raises UserError for a file that cannot be read, and for a whole line that is no verdict."""
    _check_file(Path(path))
    try:
        return _parsed(Path(path).read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"verdicts = {str(path)!r}: cannot be read ({error.strerror})") from None


class VerdictStore(LineFile):
    """The one writer of a file of verdicts; threads may share it. Makes the file where there is none, and leaves none
    without a verdict.

    Raises UserError where another process has it open, and as `read_verdicts` does.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        _check_file(self.path)
        parents = (self.path, *self.path.absolute().parents)
        self._made = [path for path in parents if not path.exists()]  # taken away again if nothing is put
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            super().__init__(self.path, "verdicts", "file", self._read)
        except OSError as error:
            raise UserError(f"verdicts = {str(path)!r}: cannot be written ({error.strerror})") from None

    def _read(self, raw: bytes) -> int:
        self._verdicts = _parsed(raw, str(self.path))
        whole = raw.rfind(b"\n") + 1
        if not _START.startswith(raw[whole:][: len(_START)]):  # nobody's torn line, but another file's text
            raise UserError(f"verdicts = {str(self.path)!r}: holds something else than verdicts")
        return whole

    def __len__(self) -> int:
        return len(self._verdicts)

    def get(self, key: str) -> Verdict | None:
        return self._verdicts.get(key)

    def put(self, key: str, judge: str, verdict: Verdict) -> None:
        """Append, unless the key has a verdict. Raises OSError, and the file still ends with a whole line."""
        said = {"key": key, "judge": judge, "preference": verdict.preference, "reply": verdict.reply}
        line = (json.dumps(said | {"whole": True}, allow_nan=False) + "\n").encode()
        with self._lock:
            if key in self._verdicts:
                return
            self.append(line)
            self._verdicts[key] = verdict

    def close(self) -> None:
        if self._made and not self.size:
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # somebody else uses the folder
                for folder in self._made[1:]:
                    folder.rmdir()
        super().close()


@dataclass(frozen=True)
class StoredVerdicts:
    """A judge that knows only what is on file; None for anything else."""

    name: str
    template: str
    verdicts: dict[str, Verdict]

    def __call__(self, batch: Sequence[ResponsePair]) -> list[float | None]:
        found = (self.verdicts.get(verdict_key(self.name, self.template, c)) for c in batch)
        return [None if verdict is None else verdict.preference for verdict in found]


def stored_judge(path: Path | str, template: str, model: str | None = None) -> StoredVerdicts:
    """The judge whose verdicts are on file, which answers nothing else. `model`, or all of a judge's name, picks one
    where the file has several. Raises UserError for a file that cannot be read, or without one such judge."""
    verdicts = read_verdicts(path)
    labels = {str(json.loads(line).get("judge", "")) for line in Path(path).read_bytes().split(b"\n")[:-1]}
    names = sorted({same_judge(label): label for label in sorted(labels)}.values())
    chosen = [name for name in names if model in (None, name) or name.startswith(f"{model} at ")]
    if len(chosen) != 1:
        there = [name[:100] for name in names[:5]] or "none"
        raise UserError(f"--verdicts {str(path)!r}: name one judge by --judge-model; it has {there}")
    return StoredVerdicts(chosen[0], template, verdicts)


def _check_file(path: Path) -> None:
    try:
        other = path.exists() and not path.is_file()
    except OSError as error:
        raise UserError(f"verdicts = {str(path)!r}: cannot be read ({error.strerror})") from None
    if other:
        raise UserError(f"verdicts = {str(path)!r}: not a file")


def _parsed(raw: bytes, path: str) -> dict[str, Verdict]:
    verdicts: dict[str, Verdict] = {}
    # What follows the last line's end is torn, or nothing.
    for number, line in enumerate(raw.split(b"\n")[:-1], 1):
        try:
            record = json.loads(line)
            key, preference, reply = record["key"], record["preference"], record.get("reply", "")
            usable = preference is None or (type(preference) in (int, float) and 0 <= preference <= 1)
            if not (isinstance(key, str) and isinstance(reply, str) and usable):
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise UserError(
                f"verdicts = {path!r}: line {number} is no verdict; a JSON object with key, preference (0 .. 1 or "
                "null) and reply is needed"
            ) from None
        if preference is not None or record.get("whole") is True:
            verdicts.setdefault(key, Verdict(preference, reply))
    return verdicts
