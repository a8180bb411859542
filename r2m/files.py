"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from r2m.errors import UserError


def write_whole(path: Path | str, text: str) -> None:
    """Aside first, then into its place: a reader never sees a half. Raises OSError."""
    path = Path(path)
    aside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def folder_made_whole(folder: Path, field: str) -> Iterator[Path]:
    """A hidden sibling that becomes `folder` at the end, if nothing fails, and is removed else.

    Raises UserError, which begins with `field`, where somebody else's became it first.
    """
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    aside.mkdir(parents=True)
    try:
        yield aside
        try:
            aside.rename(folder)  # refused where it is there and holds something
        except OSError:
            if not folder.exists():
                raise
            raise UserError(f"{field}: another process has just taken that name; take another") from None
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
