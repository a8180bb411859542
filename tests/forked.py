"""Workers of a test in processes of their own."""

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp

# What takes a new process some nine seconds to load. A process that has done nothing else loads it once, and every
# worker is a fork of it: none has anything of the test's own process.
LOADED = ["r2m.training.loop", "deepspeed"]


def start_workers(worker: Callable[..., None], args: tuple[Any, ...], size: int) -> None:
    """Run worker(rank, *args) for each rank below `size`, at once; raises what one of them raises."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(LOADED)
    mp.start_processes(worker, args, nprocs=size, start_method="forkserver")  # type: ignore[no-untyped-call]
