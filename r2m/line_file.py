"""A file of lines that one process appends to: locked while open, and each line on the disk before it counts."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from r2m.errors import UserError


class LineFile:
    """Opened by its one writer, and made where there is none. `size`: the bytes of its whole lines.

    `kind` and `of` are for messages: "journal" of a "run". Raises UserError where another process has it open, and
    OSError.
    """

    def __init__(self, path: Path, kind: str, of: str, whole: Callable[[bytes], int]) -> None:
        self.path, self._kind = path, kind
        self._file = open(path, "ab+", buffering=0)  # noqa: SIM115 (closed by close)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go by the kernel if we are killed
            self._file.seek(0)
            raw = self._file.read()
            self.size = whole(raw)
            self.torn = len(raw) - self.size
            if self.torn:
                self._file.truncate(self.size)
        except BlockingIOError:
            self._file.close()
            raise UserError(f"{kind} = {str(path)!r}: another process is writing this {of}") from None
        except BaseException:
            self._file.close()
            raise

    def append(self, line: bytes) -> None:
        """Raises OSError with the path (a full disk); the file then still ends with a whole line."""
        try:
            rest = memoryview(line)
            while rest:  # a nearly full disk takes a part of the line before it refuses
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self.size)
            words = f"cannot write the {self._kind}: {error.strerror}"
            raise OSError(error.errno, words, str(self.path)) from error
        self.size += len(line)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def holding(path: Path) -> Iterator[None]:
    """Makes `is_held` true of the file meanwhile, or of its being held already by another process. Raises OSError."""
    with open(path, "ab") as file:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def is_held(path: Path | str) -> bool:
    """Whether a process has the file open for writing. Nothing is written to find out."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
