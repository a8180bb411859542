"""Paths in settings: relative to the folder in which a command is typed, and absolute from there on.

A setting that names a model or data may name a local one or one on the hub.
"""

import os
import re
from pathlib import Path
from typing import Any

from pydantic_core import PydanticCustomError

from r2m.config.schema import Config
from r2m.config.types import printable_path
from r2m.config.uris import sqlite_path, sqlite_uri
from r2m.errors import UserError, shown

MODELS = ("policy.model", "reward.model", "run.judge")
LOCAL_OR_HUB = (*MODELS, "task.data", "reward.anchor_data")  # settings that name a local or a hub's
HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
DATA_FILE = re.compile(r".*\.(json|jsonl|ndjson|parquet|csv|tsv|txt|arrow)(\.\w+)?", re.IGNORECASE)


def absolute(path: str) -> str:
    """`path`, relative to the folder that this process is in. `~` is the user's own folder."""
    return os.path.abspath(os.path.expanduser(path))


def checked_path(option: str, path: str) -> str:
    """The path as it was given. Raises UserError where nothing can have this name."""
    try:
        return printable_path(path)
    except PydanticCustomError as error:
        raise UserError(f"{option} {shown(path)}: {error.message()[0].lower()}{error.message()[1:]}") from None


def place(name: str, data: bool = False) -> str:
    """The absolute path of a local model (or, with `data`, of data), or an id on the hub as it is.

    It is an id where it could be one and nothing of that name is here.
    """
    path = absolute(name)
    could_be_id = HUB_ID.fullmatch(name) and not (data and DATA_FILE.fullmatch(name))
    return name if could_be_id and not os.path.exists(path) else path


def with_absolute_paths(config: Config) -> Config:
    """The same configuration, for processes in any folder."""
    run, task = config.run, config.task
    file = sqlite_path(run.tracking_uri or "")
    changed = {
        "storage": absolute(run.storage),
        "judge": run.judge and place(run.judge),
        "tracking_uri": sqlite_uri(absolute(str(file))) if file else run.tracking_uri,
    }
    r = config.reward
    named = r.members if isinstance(r.members, int) else tuple(map(place, r.members))
    update = {
        "policy": config.policy.model_copy(update={"model": config.policy.model and place(config.policy.model)}),
        "reward": r.model_copy(
            update={
                "model": r.model and place(r.model),
                "members": named,
                "anchor_data": r.anchor_data and place(r.anchor_data, data=True),
            }
        ),
        "run": run.model_copy(update=changed),
    }
    if task.kind == "text":
        update["task"] = task.model_copy(update={"data": place(task.data, data=True)})
    return config.model_copy(update=update)


def setting(config: Config, key: str) -> Any:
    """The value of a dotted key; None where the task has no such setting."""
    section, name = key.split(".")
    return getattr(getattr(config, section), name, None)


def named_members(config: Config) -> tuple[str, ...]:
    """The further reward models of an ensemble, where the settings name them."""
    r = config.reward
    return () if r.ensemble == "none" or isinstance(r.members, int) else r.members


def check_places(config: Config) -> None:
    """Raises UserError where a local model or data file is not there."""
    named = [(key, setting(config, key)) for key in LOCAL_OR_HUB]
    named += [("reward.members", member) for member in named_members(config)]
    for key, value in named:
        if value is None or not os.path.isabs(value):
            continue
        if key in (*MODELS, "reward.members") and not os.path.isdir(value):
            raise UserError(
                f"{key} = {value!r}: no such folder; a folder or hub id is allowed, and a path is relative to the "
                "folder in which the command is typed"
            )
        if not os.path.exists(value):
            raise UserError(f"{key} = {value!r}: no such file")


def check_storage_folder(storage: str) -> None:
    """Raises UserError, before anything is written, where a storage folder cannot be made or written to."""
    folder = Path(storage)
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"run.storage = {storage!r}: {folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"run.storage = {storage!r}: {folder} cannot be written to")
