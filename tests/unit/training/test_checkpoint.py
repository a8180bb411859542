"""Checkpoints: whole or refused, with all that they were given."""

import hashlib
import json
import os
import resource
import shutil
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from r2m.errors import UserError
from r2m.training import checkpoint
from r2m.training.checkpoint import CorruptCheckpointError, found, load_checkpoint, newest_whole, save_checkpoint
from r2m.workers import Workers


def tensors(value: float) -> dict[str, Tensor]:
    return {"a/weight": torch.full((3, 2), value), "b": torch.arange(5), "c": torch.ones(2, dtype=torch.bfloat16)}


def save_steps(folder: Path, *steps: int, keep: int = 9) -> None:
    for step in steps:
        save_checkpoint(folder, step, tensors(step), {"seed": 7}, keep)


def newest(folder: Path) -> tuple[int | None, list[str]]:
    """The step that would be resumed, and what was refused before it."""
    refused: list[str] = []
    state = newest_whole(folder, refused.append)
    return (None if state is None else state[2]["step"]), refused


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "new" / "folder", 3, tensors(1.5), {"seed": 7, "config_hash": "abc"}, 2)
    loaded, _, facts = load_checkpoint(path)
    assert (facts["step"], facts["seed"], facts["config_hash"]) == (3, 7, "abc")
    assert loaded.keys() == tensors(0).keys()
    for name, value in tensors(1.5).items():
        assert torch.equal(loaded[name], value)
        assert loaded[name].dtype == value.dtype


def test_the_newest_are_kept(tmp_path: Path) -> None:
    save_steps(tmp_path, 1, 2, 10, 100, keep=2)
    assert [path.name for path in found(tmp_path)] == ["step-000100", "step-000010"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000010", "step-000100"]


def test_a_step_saved_again_is_replaced(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 4, tensors(1), {}, 2)
    save_checkpoint(tmp_path, 4, tensors(2), {}, 2)
    assert load_checkpoint(tmp_path / "step-000004")[0]["a/weight"][0, 0] == 2


def test_a_file_in_the_place_of_a_checkpoint_is_replaced_too(tmp_path: Path) -> None:
    (tmp_path / "step-000002").write_text("a file")
    (tmp_path / "step-000004").write_text("a file")
    assert newest(tmp_path)[0] is None
    save_steps(tmp_path, 3, 4, keep=2)
    assert newest(tmp_path) == (4, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000003", "step-000004"]


def test_no_checkpoint(tmp_path: Path) -> None:
    assert newest(tmp_path / "none") == (None, [])


def truncate(path: Path) -> None:
    os.truncate(path / checkpoint.STATE, (path / checkpoint.STATE).stat().st_size - 1)


def flip_a_bit(path: Path) -> None:
    data = bytearray((path / checkpoint.STATE).read_bytes())
    data[-3] ^= 1
    (path / checkpoint.STATE).write_bytes(data)


def lose_state(path: Path) -> None:
    (path / checkpoint.STATE).unlink()


def lose_manifest(path: Path) -> None:
    (path / checkpoint.MANIFEST).unlink()


def cut_manifest(path: Path) -> None:
    os.truncate(path / checkpoint.MANIFEST, 20)


def empty_manifest(path: Path) -> None:
    (path / checkpoint.MANIFEST).write_text("[]")


def edit(path: Path, own_hash: bool = False, **changes: object) -> None:
    """Other facts in a manifest; with `own_hash` by somebody who makes its own hash anew. None: the fact is lost."""
    manifest = json.loads((path / checkpoint.MANIFEST).read_text()) | changes
    manifest = {key: value for key, value in manifest.items() if value is not None}
    if own_hash:
        rest = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
        digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
        manifest["manifest_sha256"] = digest
    (path / checkpoint.MANIFEST).write_text(json.dumps(manifest))


def another_step(path: Path) -> None:
    edit(path, step=4)


def another_step_hashed(path: Path) -> None:
    edit(path, own_hash=True, step=4)


def no_step(path: Path) -> None:
    edit(path, own_hash=True, step=None)


def hashes_of_nothing(path: Path) -> None:
    edit(path, own_hash=True, sha256={})
    flip_a_bit(path)


def hashes_emptied(path: Path) -> None:
    edit(path, sha256={})
    flip_a_bit(path)


def no_hashes(path: Path) -> None:
    edit(path, own_hash=True, sha256=None)


def another_file(path: Path) -> None:
    edit(path, own_hash=True, sha256={"manifest.json": "0"})


def no_own_hash(path: Path) -> None:
    edit(path, manifest_sha256=None)


def another_seed(path: Path) -> None:
    edit(path, seed=8)


def deep_manifest(path: Path) -> None:
    (path / checkpoint.MANIFEST).write_text("[" * 100_000)


def a_folder_for_a_manifest(path: Path) -> None:
    lose_manifest(path)
    (path / checkpoint.MANIFEST).mkdir()


def of_another_step(path: Path) -> None:
    """A whole checkpoint under another's name."""
    shutil.rmtree(path)
    shutil.copytree(path.with_name("step-000002"), path)


SPOILT = [
    truncate, flip_a_bit, lose_state, lose_manifest, cut_manifest, empty_manifest, another_step,
    another_step_hashed, no_step, hashes_of_nothing, hashes_emptied, no_hashes, another_file, no_own_hash,
    another_seed, deep_manifest, a_folder_for_a_manifest, of_another_step,
]  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_spoilt_one_is_refused_and_the_one_before_it_taken(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    save_steps(tmp_path, 2, 4, 6)
    spoil(tmp_path / "step-000006")
    with pytest.raises(CorruptCheckpointError, match="step-000006: "):
        load_checkpoint(tmp_path / "step-000006")
    step, refused = newest(tmp_path)
    assert step == 4
    assert len(refused) == 1
    assert refused[0].startswith("step-000006: ")
    assert "\n" not in refused[0]


def test_one_of_another_run_is_refused_and_the_one_before_it_taken(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 2, tensors(2), {"config_hash": "mine"}, 9)
    save_checkpoint(tmp_path, 4, tensors(4), {"config_hash": "other"}, 9)
    save_checkpoint(tmp_path, 6, tensors(6), {}, 9)
    refused: list[str] = []
    state = newest_whole(tmp_path, refused.append, "mine")
    assert state is not None
    assert state[2]["step"] == 2
    assert refused == [
        "step-000006: of a run with config hash None, this one's is mine",
        "step-000004: of a run with config hash other, this one's is mine",
    ]


def test_where_only_other_runs_are_whole_nothing_starts_over_them(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 2, tensors(2), {"config_hash": "mine"}, 9)
    save_checkpoint(tmp_path, 4, tensors(4), {"config_hash": "other"}, 9)
    flip_a_bit(tmp_path / "step-000002")
    with pytest.raises(UserError, match="none is this run's: step-000004: of a run with config hash other"):
        newest_whole(tmp_path, lambda reason: None, "mine")


def test_what_is_no_checkpoint_by_its_name_is_left_alone(tmp_path: Path) -> None:
    save_steps(tmp_path, 999_999, 1_000_000)
    for name in ("step-000010.bak", "step-x", "step-7"):
        (tmp_path / name).mkdir()
    assert [path.name for path in found(tmp_path)] == ["step-1000000", "step-999999"]


def test_refused_ones_do_not_push_out_those_of_a_run_that_was_set_back(tmp_path: Path) -> None:
    """All refused, the run starts over: its own checkpoints are kept, or each resume would lose everything."""
    save_steps(tmp_path, 8, 10, keep=2)
    for path in found(tmp_path):
        flip_a_bit(path)
    for step in (2, 4, 6):
        save_steps(tmp_path, step, keep=2)
        assert newest(tmp_path)[0] == step
    assert [path.name for path in found(tmp_path)] == [f"step-{n:06d}" for n in (10, 8, 6, 4)]
    save_steps(tmp_path, 8, 10, keep=2)
    assert newest(tmp_path) == (10, [])
    assert len(found(tmp_path)) == 2


def test_all_spoilt(tmp_path: Path) -> None:
    save_steps(tmp_path, 1, 2)
    for path in found(tmp_path):
        flip_a_bit(path)
    step, refused = newest(tmp_path)
    assert (step, len(refused)) == (None, 2)


class TestInterrupted:
    """A writer that dies leaves the checkpoints before it, and nothing that looks like one."""

    def test_before_the_rename(self, tmp_path: Path) -> None:
        save_steps(tmp_path, 2)
        aside = save_checkpoint(tmp_path, 4, tensors(4), {}, 9).rename(tmp_path / ".step-000004.writing")
        lose_manifest(aside)
        assert newest(tmp_path) == (2, [])
        save_steps(tmp_path, 4)  # what is left of it is in nobody's way
        assert newest(tmp_path) == (4, [])
        assert not aside.exists()

    def test_by_a_full_disk(self, tmp_path: Path) -> None:
        """It leaves no file behind that would keep the disk full."""
        save_steps(tmp_path, 2)
        too_large = {"a": torch.ones(2**16)}
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, limit[1]))
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            with pytest.raises(Exception, match="File too large"):
                save_checkpoint(tmp_path, 4, too_large, {}, 9)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            signal.signal(signal.SIGXFSZ, handler)
        assert [path.name for path in tmp_path.iterdir()] == ["step-000002"]
        assert newest(tmp_path) == (2, [])


def test_the_manifest_is_plain_json_and_nothing_is_a_pickle(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, tensors(1), {"seed": 7}, 2)
    assert json.loads((path / "manifest.json").read_text())["seed"] == 7
    assert {file.name for file in path.iterdir()} == {"manifest.json", "state.safetensors"}


class TestSeveralWorkers:
    """Real processes over gloo, each with a file of its own."""

    def test_each_gets_what_it_wrote_and_what_is_everybodys(self, tmp_path: Path) -> None:
        def work(workers: Workers) -> None:
            save_checkpoint(tmp_path, 2, {"own": torch.tensor(workers.rank)}, {"seed": 7}, 2, workers)
            dist.barrier()
            state = newest_whole(tmp_path, pytest.fail, None, workers)
            assert state is not None
            shared, own, facts = state
            assert (int(shared["own"]), int(own["own"]), facts["seed"]) == (0, workers.rank, 7)

        assert ended(side_by_side(work, tmp_path)) == [0, 0]
        assert {path.name for path in (tmp_path / "step-000002").iterdir()} == {
            "manifest.json", "state.safetensors", "state-1.safetensors",
        }  # fmt: skip

    def test_one_that_one_of_them_finds_spoilt_is_refused_by_all(self, tmp_path: Path) -> None:
        def work(workers: Workers) -> None:
            for step in (2, 4):
                save_checkpoint(tmp_path, step, {"own": torch.tensor(workers.rank)}, {}, 2, workers)
            dist.barrier()
            if workers.rank == 0:
                (tmp_path / "step-000004" / "state-1.safetensors").write_bytes(b"?")
            dist.barrier()
            refused: list[str] = []
            state = newest_whole(tmp_path, refused.append, None, workers)
            assert state is not None
            assert state[2]["step"] == 2
            assert refused == ["step-000004: state-1.safetensors is not the file that was written"]

        assert ended(side_by_side(work, tmp_path)) == [0, 0]

    @pytest.mark.parametrize("rank", [0, 1])
    def test_killed_at_any_write_it_leaves_the_one_before(self, tmp_path: Path, rank: int) -> None:
        """One worker dies at its n-th write, sync or rename; the other, which waits for it, is then ended as by
        Ray."""
        survived = 0
        for point in range(20):
            folder = tmp_path / str(point)

            def work(workers: Workers, point: int = point, folder: Path = folder) -> None:
                save_checkpoint(folder, 2, {"own": torch.tensor(workers.rank)}, {}, 9, workers)
                dist.barrier()
                if workers.rank == rank:
                    die_at(point)
                save_checkpoint(folder, 4, {"own": torch.tensor(workers.rank + 10)}, {}, 9, workers)

            folder.mkdir()
            processes = side_by_side(work, folder)
            codes = ended(processes, first=rank)
            step, refused = newest(folder)
            assert refused == []
            if codes[rank] == 0:
                assert step == 4
                survived = point
                break
            assert codes[rank] == 9
            assert step == (4 if (folder / "step-000004").exists() else 2)
            save_steps(folder, 6)  # what is left is in nobody's way
            assert newest(folder) == (6, [])
        assert survived >= (5 if rank == 0 else 2)


def side_by_side(work: Callable[[Workers], None], folder: Path) -> list[int]:
    """Two forked workers of one gloo group; their process ids."""
    pids = []
    for rank in range(2):
        pid = os.fork()
        if pid:
            pids.append(pid)
            continue
        code = 1
        try:
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"
            rendezvous = f"file://{folder}/.rendezvous"
            dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
            work(Workers(rank, 2))
            dist.barrier()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pids


def ended(pids: list[int], first: int = 0) -> list[int]:
    """Exit codes, once the first named has ended; one that died takes the other with it."""
    codes = {first: os.waitstatus_to_exitcode(os.waitpid(pids[first], 0)[1])}
    if codes[first]:
        os.kill(pids[1 - first], signal.SIGKILL)
    codes[1 - first] = os.waitstatus_to_exitcode(os.waitpid(pids[1 - first], 0)[1])
    return [codes[0], codes[1]]


def die_at(point: int) -> None:
    """Let this process end before its n-th step that changes the disk."""
    left = [point]

    def mortal(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if left[0] == 0:
                os._exit(9)
            left[0] -= 1
            return step(*args, **kwargs)

        return run

    checkpoint.save_file = mortal(checkpoint.save_file)
    checkpoint.synced = mortal(checkpoint.synced)
    for name in ("mkdir", "write_text", "replace"):
        setattr(Path, name, mortal(getattr(Path, name)))
