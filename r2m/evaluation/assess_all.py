"""Many finished runs assessed side by side, each in a process of its own."""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context, parent_process

from r2m.errors import UserError
from r2m.results.assessment import Assessment
from r2m.stages.progress import Progress, silent

PROCESSES = 2  # that assess side by side


def assess_all(
    storage: str, names: Sequence[str], prompts: int | None = None, progress: Progress = silent
) -> dict[str, Assessment | str]:
    """Name -> its assessment without the rows, or why there is none. An assessment that is there is read."""
    found: dict[str, Assessment | str] = {}
    with ProcessPoolExecutor(min(PROCESSES, os.cpu_count() or 1), get_context("spawn"), _end_with_parent) as pool:
        futures = {pool.submit(_assess, storage, name, prompts): name for name in names}
        for done, future in enumerate(as_completed(futures), 1):
            found[futures[future]] = future.result()
            progress("assessing", done, len(names))
    return {name: found[name] for name in names}


def _end_with_parent() -> None:
    """A process of a pool whose own was killed would wait for work for ever."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _assess(storage: str, name: str, prompts: int | None) -> Assessment | str:
    import torch

    from r2m.evaluation.assess import assess

    torch.set_num_threads(1)
    try:
        return replace(assess(storage, name, prompts=prompts), rows=[])
    except UserError as error:
        return str(error)
