"""Models that are trained once and kept.

A cached model is a folder named by a digest of what determines it. It is built in a sibling under a file lock
and renamed into place, so it is whole or absent, and processes that start together train it once.
"""

from collections.abc import Callable
from pathlib import Path

from r2m.files import locked, removed

FINISHED = "finished"


def cached(folder: Path, build: Callable[[Path], None]) -> None:
    """Build a cached model where it is not there whole."""
    with locked(folder.with_name(folder.name + ".lock")):
        if not (folder / FINISHED).is_file():
            from r2m.stages.common import new_folder

            with new_folder(removed(folder)) as partial:
                build(partial)
                (partial / FINISHED).touch()
