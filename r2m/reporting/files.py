"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path | str, text: str) -> None:
    """Aside first, then into its place: a reader never sees a half. Raises OSError."""
    path = Path(path)
    aside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
