"""Work in processes of this machine, side by side."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from typing import Any

Call = tuple[Any, ...]


def side_by_side(
    work: Callable[..., Any], calls: Sequence[Call], most: int | None = None
) -> Iterator[tuple[Call, Any]]:
    """Each call of `work` with what it returned, as they end; as many at a time as there are CPUs, at most `most`.
    The first error is raised, and no more is begun."""
    processes = min(len(calls), most or len(calls), os.cpu_count() or 1)
    pool = ProcessPoolExecutor(max(1, processes), get_context("spawn"), _end_with_parent)
    try:
        futures = {pool.submit(work, *call): call for call in calls}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """A process of a pool whose own was killed would wait for work for ever."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
