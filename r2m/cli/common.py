"""What the commands share: options, consoles, and what is said at their ends."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console

from r2m.config.paths import absolute, checked_path

if TYPE_CHECKING:
    from r2m.stages.common import Progress

STORAGE = "r2m-runs"

out, err = Console(markup=False), Console(stderr=True, markup=False)  # names may hold what reads as markup


def place(storage: str | None) -> str:
    """The storage folder, absolute. Raises UserError where it is no name of a folder."""
    return absolute(checked_path("--storage", STORAGE if storage is None else storage))


def local(path: Path | None) -> Path | None:
    """A file that a command is given, absolute. (typer's callback of an option)"""
    return path and Path(absolute(str(path)))


Local = TypeVar("Local", str, Path, None)


def home(path: Local) -> Local:
    """A file or model that a command is given and reads in its own folder. (typer's callback)"""
    return path and type(path)(os.path.expanduser(path))


Storage = Annotated[str | None, typer.Option(help=f"runs, caches, MLflow's store [default: {STORAGE}]")]
Workers = Annotated[int | None, typer.Option(help="Ray Train workers of a run")]
Address = Annotated[str | None, typer.Option(help="an existing Ray cluster's address")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="print configuration and plan; run nothing")]


def progress() -> AbstractContextManager[Progress]:
    from r2m.stages.common import progress_bar

    return progress_bar()


def program() -> str:
    """What to type for this program: its name where the shell finds it, else its path."""
    return "r2m" if shutil.which("r2m") else os.path.abspath(sys.argv[0])


def report(facts: dict[str, Any], to: Path) -> None:
    for key, value in facts.items():
        if key == "data_left_out":
            for reason, of in value.items():
                out.print(
                    f"left out: {of['rows']:,}: {reason} (first: {of['first']})", markup=False, soft_wrap=True
                )
            continue
        out.print(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}", markup=False)
    out.print(f"written: {to}", soft_wrap=True)


def say_left_out(journal: Path) -> None:
    """What rows of its data a run or a sweep that starts does not use."""
    from r2m.runs.journal import read

    for dataset in read(journal).start["datasets"]:
        if "left_out" in dataset:
            err.print(dataset["left_out"], markup=False, highlight=False, soft_wrap=True)
