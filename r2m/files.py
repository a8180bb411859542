"""Files and folders that are written whole or not at all, locks that a killed process lets go of, room on a disk."""

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from r2m.errors import UserError

GIB = 2**30


@contextmanager
def made_whole(path: Path, aside: Path | None = None) -> Iterator[Path]:
    """A hidden sibling that becomes `path` at the end, if it is there and nothing fails, and is removed else.

    A reader never sees a half. What a killed process has left of the sibling is removed first. Raises OSError.
    """
    aside = aside or path.with_name(f".{os.getpid()}-{path.name}")
    removed(aside)
    try:
        yield aside
        if aside.exists():
            aside.replace(path)
    finally:
        removed(aside)


def write_whole(path: Path | str, text: str) -> None:
    """As `made_whole`, behind a link where there is one. A device or a pipe is written to, not replaced by a file."""
    path = Path(path)
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    with made_whole(path.resolve()) as aside:
        aside.write_text(text, encoding="utf-8")


@contextmanager
def folder_made_whole(folder: Path, field: str) -> Iterator[Path]:
    """As `made_whole`, of a folder that several processes may want to make.

    Raises UserError, which begins with `field`, where somebody else's became it first.
    """
    try:
        with made_whole(folder, folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")) as aside:
            aside.mkdir(parents=True)
            yield aside
    except OSError as error:
        last_step = error.filename2 == str(folder)  # refused where it is there and holds something
        if not last_step or not folder.exists():
            raise
        raise UserError(f"{field}: another process has just taken that name; take another") from None


def removed(path: Path) -> Path:
    """The path, with nothing there, as far as it can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return path


def synced(path: Path) -> Path:
    """The path, a file's or a folder's, whose contents are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return path


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """One process of this machine (and one thread of it) at a time. The holder may remove the file: who waited for it
    takes the next one. Raises BlockingIOError, without `wait`, where another has it."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES):
                raise
            path = path.parent  # of a storage that cannot be written: its folder
            handle = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                yield
                return
        finally:
            os.close(handle)


def check_room(folder: Path, size: int, field: str, what: str) -> None:
    """Raises UserError, which begins with `field`, where the disk of a folder, which need not exist yet, has no room
    for so many bytes of what there will be."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(f"{field}: {what} take {human(size)}, and {human(free)} are free")


def human(size: int) -> str:
    return f"{size / GIB:,.1f} GiB" if size >= GIB else f"{size / 2**20:,.1f} MiB"
