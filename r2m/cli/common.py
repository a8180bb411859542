"""What commands say, and how."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from r2m.errors import UserError

if TYPE_CHECKING:
    from r2m.stages.progress import Progress

out, err = Console(markup=False), Console(stderr=True, markup=False)  # names may hold what reads as markup


def progress() -> AbstractContextManager[Progress]:
    from r2m.stages.progress import progress_bar

    return progress_bar()


def program() -> str:
    """What to type for this program: its name where the shell finds it, else its path."""
    return "r2m" if shutil.which("r2m") else os.path.abspath(sys.argv[0])


def say(line: str) -> None:
    """A line beside the results, as it is."""
    err.print(line, soft_wrap=True, highlight=False)


def check_driver(address: str | None) -> None:
    """As `check_address`, for a command that cannot be a client of the cluster."""
    from r2m.training.cluster import check_address

    check_address(address)
    if address is not None and address.startswith("ray://"):
        raise UserError(
            f"--address {address!r}: this process reads and writes the storage itself; start it on a node of the "
            "cluster, with --address auto or HOST:6379"
        )


def report(facts: dict[str, Any], to: Path) -> None:
    for key, value in facts.items():
        if key != "data_left_out":
            out.print(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}")
    for reason, of in facts.get("data_left_out", {}).items():
        out.print(f"left out: {of['rows']:,}: {reason} (first: {of['first']})", soft_wrap=True)
    out.print(f"written: {to}", soft_wrap=True)


def say_left_out(journal: Path) -> None:
    """What rows of its data a run or a sweep that starts does not use."""
    from r2m.runs.journal import read

    for dataset in read(journal).start["datasets"]:
        if "left_out" in dataset:
            say(dataset["left_out"])
