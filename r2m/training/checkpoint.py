"""Checkpoints that are whole or not there: written aside, synced, hashed, renamed.

A checkpoint is a folder `step-000010` with `state.safetensors` (all tensors) and `manifest.json`, written last,
which holds the rest of the state and the hash of the tensors' file. Nothing in it is a pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Tree = dict[str, Any]
STATE, MANIFEST = "state.safetensors", "manifest.json"


class CorruptCheckpointError(ValueError):
    """A checkpoint whose files are not what its manifest says."""


def save(folder: Path, step: int, tensors: dict[str, Tensor], facts: Tree, keep: int) -> Path:
    """Write the checkpoint of `step` into `folder`, then drop all but the newest `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    target, aside = folder / f"step-{step:06d}", folder / f".step-{step:06d}.writing"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        save_file({name: t.detach().contiguous() for name, t in tensors.items()}, aside / STATE)
        _sync(aside / STATE)
        manifest = {"step": step, "sha256": {STATE: _sha256(aside / STATE)}, **facts}
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1))
        _sync(aside / MANIFEST)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)  # it may be what fills the disk
        raise
    _sync(aside)
    shutil.rmtree(target, ignore_errors=True)  # of this step, left by a run that was set back before it
    aside.rename(target)
    _sync(folder)
    for old in found(folder)[keep:]:
        shutil.rmtree(old)
    return target


def found(folder: Path) -> list[Path]:
    """The checkpoints in the folder, newest first, whole or not."""
    return sorted(folder.glob("step-*"), reverse=True)


def load(path: Path) -> tuple[dict[str, Tensor], Tree]:
    """The tensors and the facts of one checkpoint.

    Raises CorruptCheckpointError for one that is truncated, altered or incomplete.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        hashes = manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptCheckpointError(f"{path.name}: its manifest cannot be read ({error})") from None
    for name, expected in hashes.items():
        if not (path / name).is_file() or _sha256(path / name) != expected:
            raise CorruptCheckpointError(f"{path.name}: {name} is not the file that was written")
    return load_file(path / STATE), manifest


def newest_whole(folder: Path, refused: Callable[[str], None]) -> tuple[dict[str, Tensor], Tree] | None:
    """The newest checkpoint that is whole; each newer one that is not is reported to `refused`."""
    for path in found(folder):
        try:
            return load(path)
        except CorruptCheckpointError as error:
            refused(str(error))
    return None


def optimizer_tensors(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as flat tensors: `prefix/<parameter>/<name>`."""
    return {
        f"{prefix}/{index}/{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizer(prefix: str, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _under(prefix, tensors):
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def module_tensors(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """Parameters (a tied one once) and buffers as flat tensors."""
    return {f"{prefix}/{name}": p for name, p in _owned(module)}


@torch.no_grad()
def restore_module(prefix: str, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    stored = dict(_under(prefix, tensors))
    for name, p in _owned(module):
        p.copy_(stored[name])


def _owned(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _under(prefix: str, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, value in tensors.items():
        if name.startswith(prefix + "/"):
            yield name.removeprefix(prefix + "/"), value


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
