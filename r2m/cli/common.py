"""What the commands share: options, consoles, and what is said at their ends."""

from __future__ import annotations

import inspect
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer
from rich.console import Console

from r2m.config.paths import absolute, checked_path

if TYPE_CHECKING:
    from r2m.stages.common import Progress

STORAGE = "r2m-runs"

out, err = Console(markup=False), Console(stderr=True, markup=False)  # names may hold what reads as markup


def storage_folder(storage: str | None) -> str:
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
WorkersOption = Annotated[int | None, typer.Option(help="Ray Train workers of a run")]
Address = Annotated[str | None, typer.Option(help="an existing Ray cluster's address")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="print configuration and plan; run nothing")]


def with_options(of: type, taken_as: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes of a command that takes a dataclass as `taken_as` one that has an option for each field in its place."""
    options = inspect.signature(of).parameters

    def with_them(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True) | get_type_hints(of, include_extras=True)
        own = [p for name, p in inspect.signature(command).parameters.items() if name != taken_as]

        @wraps(command)
        def with_options(**given: Any) -> None:
            command(**{taken_as: of(**{name: given.pop(name) for name in options})}, **given)

        shown = [*own, *options.values()]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[p.name]) for p in shown]
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: hints[p.name] for p in shown}
        return with_options

    return with_them


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
                out.print(f"left out: {of['rows']:,}: {reason} (first: {of['first']})", markup=False, soft_wrap=True)
            continue
        out.print(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}", markup=False)
    out.print(f"written: {to}", soft_wrap=True)


def say_left_out(journal: Path) -> None:
    """What rows of its data a run or a sweep that starts does not use."""
    from r2m.runs.journal import read

    for dataset in read(journal).start["datasets"]:
        if "left_out" in dataset:
            err.print(dataset["left_out"], markup=False, highlight=False, soft_wrap=True)
