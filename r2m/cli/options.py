"""Options that commands share, and what a value given on the command line means."""

import inspect
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from typer import Option

from r2m.config.paths import absolute, checked_path

STORAGE = "r2m-runs"


def storage_path(storage: str | None) -> str:
    """The storage folder, absolute. Raises UserError where it is no name of a folder."""
    return absolute(checked_path("--storage", STORAGE if storage is None else storage))


def local(path: Path | None) -> Path | None:
    """A file that a command is given, absolute. (typer's callback of an option)"""
    return path and Path(absolute(str(path)))


Local = TypeVar("Local", str, Path, None)


def home(path: Local) -> Local:
    """A file or model that a command is given and reads in its own folder. (typer's callback)"""
    return path and type(path)(os.path.expanduser(path))


Storage = Annotated[str | None, Option(help=f"runs, caches, MLflow's store [default: {STORAGE}]")]
TrackingUri = Annotated[str | None, Option(help="MLflow's [default: SQLite in the storage]")]
Workers = Annotated[int | None, Option(help="Ray Train workers of a run")]
Address = Annotated[str | None, Option(help="an existing Ray cluster's address")]
Set = Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="override a setting (of all arms)")]
DryRun = Annotated[bool, Option("--dry-run", help="print configuration and plan; run nothing")]


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
