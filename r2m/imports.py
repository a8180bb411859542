"""How heavy libraries are imported: without what nothing here uses, and without looking for garbage."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing(*, without: tuple[str, ...] = ()) -> Iterator[None]:
    """What is imported within does as if packages were not installed, if they are not loaded already.

    Imports make objects by the hundred thousand, all to stay. To look for garbage among them, meanwhile and whenever
    it is looked for later, would take a fifth of the time of both importing torch and a small model's first round.
    """
    hidden = [package for package in without if package not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()
        for package in hidden:
            sys.modules.pop(package, None)
