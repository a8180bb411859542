"""The command `r2m` that dies by SIGKILL when a pipeline's execution has come to one point: `POINT r2m-arguments…`.

STEP.before, STEP.after: a step has been done, just before and just after its event. end.after: all of them have, and
MLflow has not been told.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from r2m.cli import main
from r2m.pipelines.books import Books


def die_at(point: str) -> None:
    where, when = point.split(".")

    def deadly(write: Callable[..., None], here: Callable[..., bool]) -> Callable[..., None]:
        def then_die(books: Books, *what: Any, **facts: Any) -> None:
            if here(*what) and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            write(books, *what, **facts)
            if here(*what):
                os.kill(os.getpid(), signal.SIGKILL)

        return then_die

    Books.step = deadly(Books.step, lambda *what: what[:2] == (where, "done"))  # type: ignore[method-assign]
    Books.end = deadly(Books.end, lambda *what: where == "end")  # type: ignore[method-assign]


if __name__ == "__main__":
    die_at(sys.argv.pop(1))
    main()
