"""Checkpoints that are whole or not there: written aside, synced, hashed, renamed.

A checkpoint is a folder `step-000010`: `state.safetensors` with all tensors that are worker 0's or everybody's; of
each further worker that has a part of its own `state-1.safetensors` and so on; and `manifest.json`, which worker 0
writes last, with the rest of the state, the hashes of all tensors' files and a hash of itself. Nothing in it is a
pickle.
"""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from r2m.errors import UserError, brief
from r2m.files import made_whole, removed, synced
from r2m.workers import Workers

Facts = dict[str, Any]
STATE, MANIFEST = "state.safetensors", "manifest.json"
_ALONE = Workers()
OWN_HASH = "manifest_sha256"  # of the manifest without this key


class CorruptCheckpointError(ValueError):
    """A checkpoint that is not what was written."""


class ForeignCheckpointError(CorruptCheckpointError):
    """A whole checkpoint, of another run."""


def save_checkpoint(
    folder: Path, step: int, tensors: dict[str, Tensor], facts: Facts, keep: int, workers: Workers = _ALONE
) -> Path:
    """Write the checkpoint of `step` into `folder`, then drop all but the newest `keep` up to it.

    All workers call it, each with its own tensors, and with the folder in common. Newer checkpoints were refused, or
    the run would be past them: they don't count, and stay until their step is reached.
    """
    target = folder / f"step-{step:06d}"
    aside = folder / f".{target.name}.writing"
    if workers.rank:
        workers.gather_all([None])  # worker 0 has made the folder
        workers.gather_all(_written(aside, tensors, workers.rank))
        return target
    with made_whole(target, aside):
        aside.mkdir(parents=True)
        workers.gather_all([None])
        hashes = dict(workers.gather_all(_written(aside, tensors, 0)))
        manifest = {"step": step, "sha256": hashes, **facts}
        manifest[OWN_HASH] = _own_hash(manifest)
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1))
        synced(aside / MANIFEST)
        synced(aside)
        removed(target)  # of this step, left by a run that was set back before it
    synced(folder)
    for old in [path for path in found(folder) if _step(path) <= step][keep:]:
        removed(old)
    return target


def _written(folder: Path, tensors: dict[str, Tensor], rank: int) -> list[tuple[str, str]]:
    """Write a worker's file, if it has tensors. Its name and its hash."""
    if not tensors:
        return []
    save_file({name: t.detach().contiguous() for name, t in tensors.items()}, folder / _file(rank))
    return [(_file(rank), _sha256(synced(folder / _file(rank))))]


def _file(rank: int) -> str:
    return f"state-{rank}.safetensors" if rank else STATE


def found(folder: Path) -> list[Path]:
    """The checkpoints in the folder, newest first, whole or not."""
    paths = (path for path in folder.glob("step-*") if re.fullmatch(r"step-[0-9]{6,}", path.name))
    return sorted(paths, key=_step, reverse=True)


def load_checkpoint(
    path: Path, config_hash: str | None = None, rank: int = 0
) -> tuple[dict[str, Tensor], dict[str, Tensor], Facts]:
    """The tensors of worker 0, those of worker `rank` (worker 0's where it wrote none), and the facts of one
    checkpoint; `config_hash`: what these must have, if given.

    Raises CorruptCheckpointError, one line, for one that is truncated, altered, incomplete or another run's.
    """
    manifest = _manifest(path)
    own = _file(rank) if _file(rank) in manifest["sha256"] else STATE
    for name in {STATE, own}:
        if not (path / name).is_file() or _sha256(path / name) != manifest["sha256"][name]:
            raise CorruptCheckpointError(f"{path.name}: {name} is not the file that was written")
    if config_hash is not None and manifest.get("config_hash") != config_hash:
        raise ForeignCheckpointError(
            f"{path.name}: of a run with config hash {manifest.get('config_hash')}, this one's is {config_hash}"
        )
    shared = load_file(path / STATE)
    return shared, shared if own == STATE else load_file(path / own), manifest


def _manifest(path: Path) -> Facts:
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptCheckpointError(f"{path.name}: its manifest cannot be read ({brief(error)})") from None
    if not isinstance(manifest, dict) or manifest.get(OWN_HASH) != _own_hash(manifest):
        raise CorruptCheckpointError(f"{path.name}: its manifest is not what was written")
    if manifest.get("step") != _step(path):
        raise CorruptCheckpointError(f"{path.name}: its manifest is of step {manifest.get('step')}")
    hashes = manifest.get("sha256")
    if not isinstance(hashes, dict) or not hashes or list(hashes) != [_file(rank) for rank in range(len(hashes))]:
        raise CorruptCheckpointError(f"{path.name}: its manifest does not name {STATE}, and nothing else")
    return manifest


def newest_whole(
    folder: Path, refused: Callable[[str], None], config_hash: str | None = None, workers: Workers = _ALONE
) -> tuple[dict[str, Tensor], dict[str, Tensor], Facts] | None:
    """As `load_checkpoint`, of the newest checkpoint that all workers find whole and of this config; each newer one
    that is not is reported to `refused`.

    Raises UserError where only other runs' are whole: to start over would write over them.
    """
    foreign = None
    for path in workers.gather_all([] if workers.rank else found(folder)):
        state, trouble = None, []
        try:
            state = load_checkpoint(path, config_hash, workers.rank)
        except CorruptCheckpointError as error:
            trouble = [str(error)]
            if isinstance(error, ForeignCheckpointError):
                foreign = foreign or error
        if not (trouble := workers.gather_all(trouble)):
            return state
        refused(trouble[0])
    if foreign is not None:
        raise UserError(f"checkpoint {folder}: none is this run's: {foreign}; move them away to start over")
    return None


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _own_hash(manifest: Facts) -> str:
    rest = {key: value for key, value in manifest.items() if key != OWN_HASH}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
