"""Work in processes of this machine, side by side."""

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from typing import Any

from r2m.stages.progress import Progress


def side_by_side(work: Callable[..., None], calls: Iterable[tuple[Any, ...]], phase: str, progress: Progress) -> None:
    """Each call of `work`, as many at a time as there are CPUs. The first error is raised, and no more is begun."""
    asked = list(calls)
    pool = ProcessPoolExecutor(min(len(asked), os.cpu_count() or 1), get_context("spawn"), end_with_parent)
    try:
        for done, future in enumerate(as_completed([pool.submit(work, *call) for call in asked]), 1):
            future.result()
            progress(phase, done, len(asked))
    finally:
        pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """A process of a pool whose own was killed would wait for work for ever."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
