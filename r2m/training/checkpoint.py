"""Checkpoints that are whole or not there: written aside, synced, hashed, renamed.

A checkpoint is a folder `step-000010` with `state.safetensors` (all tensors) and `manifest.json`, written last,
which holds the rest of the state, the hash of the tensors' file and a hash of itself. Nothing in it is a pickle.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from r2m.errors import UserError, brief
from r2m.files import made_whole, removed, synced

Facts = dict[str, Any]
STATE, MANIFEST = "state.safetensors", "manifest.json"
OWN_HASH = "manifest_sha256"  # of the manifest without this key


class CorruptCheckpointError(ValueError):
    """A checkpoint that is not what was written."""


class ForeignCheckpointError(CorruptCheckpointError):
    """A whole checkpoint, of another run."""


def save_checkpoint(folder: Path, step: int, tensors: dict[str, Tensor], facts: Facts, keep: int) -> Path:
    """Write the checkpoint of `step` into `folder`, then drop all but the newest `keep` up to it.

    Newer ones were refused, or the run would be past them: they don't count, and stay until their step is reached.
    """
    target = folder / f"step-{step:06d}"
    with made_whole(target, folder / f".{target.name}.writing") as aside:
        aside.mkdir(parents=True)
        save_file({name: t.detach().contiguous() for name, t in tensors.items()}, aside / STATE)
        manifest = {"step": step, "sha256": {STATE: _sha256(synced(aside / STATE))}, **facts}
        manifest[OWN_HASH] = _own_hash(manifest)
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1))
        synced(aside / MANIFEST)
        synced(aside)
        removed(target)  # of this step, left by a run that was set back before it
    synced(folder)
    for old in [path for path in found(folder) if _step(path) <= step][keep:]:
        removed(old)
    return target


def found(folder: Path) -> list[Path]:
    """The checkpoints in the folder, newest first, whole or not."""
    paths = (path for path in folder.glob("step-*") if re.fullmatch(r"step-[0-9]{6,}", path.name))
    return sorted(paths, key=_step, reverse=True)


def load_checkpoint(path: Path, config_hash: str | None = None) -> tuple[dict[str, Tensor], Facts]:
    """The tensors and the facts of one checkpoint; `config_hash`: what these must have, if given.

    Raises CorruptCheckpointError, one line, for one that is truncated, altered, incomplete or another run's.
    """
    manifest = _manifest(path)
    if not (path / STATE).is_file() or _sha256(path / STATE) != manifest["sha256"][STATE]:
        raise CorruptCheckpointError(f"{path.name}: {STATE} is not the file that was written")
    if config_hash is not None and manifest.get("config_hash") != config_hash:
        raise ForeignCheckpointError(
            f"{path.name}: of a run with config hash {manifest.get('config_hash')}, this one's is {config_hash}"
        )
    return load_file(path / STATE), manifest


def _manifest(path: Path) -> Facts:
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptCheckpointError(f"{path.name}: its manifest cannot be read ({brief(error)})") from None
    if not isinstance(manifest, dict) or manifest.get(OWN_HASH) != _own_hash(manifest):
        raise CorruptCheckpointError(f"{path.name}: its manifest is not what was written")
    if manifest.get("step") != _step(path):
        raise CorruptCheckpointError(f"{path.name}: its manifest is of step {manifest.get('step')}")
    if not isinstance(manifest.get("sha256"), dict) or manifest["sha256"].keys() != {STATE}:
        raise CorruptCheckpointError(f"{path.name}: its manifest does not name {STATE}, and nothing else")
    return manifest


def newest_whole(
    folder: Path, refused: Callable[[str], None], config_hash: str | None = None
) -> tuple[dict[str, Tensor], Facts] | None:
    """The newest checkpoint that is whole and of this config; each newer one that is not is reported to `refused`.

    Raises UserError where only other runs' are whole: to start over would write over them.
    """
    foreign = None
    for path in found(folder):
        try:
            return load_checkpoint(path, config_hash)
        except CorruptCheckpointError as error:
            refused(str(error))
            if isinstance(error, ForeignCheckpointError):
                foreign = foreign or error
    if foreign is not None:
        raise UserError(f"checkpoint {folder}: none is this run's: {foreign}; move them away to start over")
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


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _own_hash(manifest: Facts) -> str:
    rest = {key: value for key, value in manifest.items() if key != OWN_HASH}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
