"""Checkpoints: whole or refused, with all that they were given."""

import hashlib
import json
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from r2m.errors import UserError
from r2m.training import checkpoint
from r2m.training.checkpoint import CorruptCheckpointError, found, load_checkpoint, newest_whole, save_checkpoint


def tensors(value: float) -> dict[str, Tensor]:
    return {"a/weight": torch.full((3, 2), value), "b": torch.arange(5), "c": torch.ones(2, dtype=torch.bfloat16)}


def save_steps(folder: Path, *steps: int, keep: int = 9) -> None:
    for step in steps:
        save_checkpoint(folder, step, tensors(step), {"seed": 7}, keep)


def newest(folder: Path) -> tuple[int | None, list[str]]:
    """The step that would be resumed, and what was refused before it."""
    refused: list[str] = []
    state = newest_whole(folder, refused.append)
    return (None if state is None else state[1]["step"]), refused


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "new" / "folder", 3, tensors(1.5), {"seed": 7, "config_hash": "abc"}, 2)
    loaded, facts = load_checkpoint(path)
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
    assert state[1]["step"] == 2
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


class TestModules:
    def test_tied_weights_are_stored_once_and_stay_tied(self) -> None:
        def make(seed: int) -> LlamaForCausalLM:
            torch.manual_seed(seed)
            return LlamaForCausalLM(LlamaConfig(
                vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
                tie_word_embeddings=True,
            ))  # fmt: skip

        source, target = make(0), make(1)
        stored = checkpoint.module_tensors("policy", source)
        assert sum("embed_tokens" in name or "lm_head" in name for name in stored) == 1
        checkpoint.restore_module("policy", target, stored)
        assert target.lm_head.weight is target.model.embed_tokens.weight
        ids = torch.tensor([[1, 2, 3]])
        assert torch.equal(source(ids).logits, target(ids).logits)

    def test_buffers_are_part_of_it(self) -> None:
        source, target = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
        source(torch.randn(8, 3))
        checkpoint.restore_module("m", target, checkpoint.module_tensors("m", source))
        assert torch.equal(source.running_mean, target.running_mean)
        assert target.num_batches_tracked == 1

    def test_a_missing_tensor_is_an_error(self) -> None:
        stored = checkpoint.module_tensors("m", nn.Linear(2, 2))
        del stored["m/bias"]
        with pytest.raises(KeyError, match="bias"):
            checkpoint.restore_module("m", nn.Linear(2, 2), stored)


@pytest.mark.parametrize("steps", [0, 3])
def test_an_optimiser_goes_on_as_if_never_interrupted(tmp_path: Path, steps: int) -> None:
    """Through the file; also one that has not taken a step."""

    def make() -> tuple[nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        return layer, torch.optim.AdamW(layer.parameters(), 0.1, fused=True)

    def descend(layer: nn.Linear, optimizer: torch.optim.Optimizer, times: int) -> None:
        for i in range(times):
            layer(torch.full((1, 3), float(i + 1))).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    (layer, optimizer), (other, other_optimizer) = make(), make()
    descend(layer, optimizer, steps)
    state = checkpoint.module_tensors("m", layer) | checkpoint.optimizer_tensors("o", optimizer)
    stored, _ = load_checkpoint(save_checkpoint(tmp_path, steps, state, {}, 2))
    checkpoint.restore_module("m", other, stored)
    checkpoint.restore_optimizer("o", other_optimizer, stored)
    descend(layer, optimizer, 3)
    descend(other, other_optimizer, 3)
    assert torch.equal(layer.weight, other.weight)


def test_the_manifest_is_plain_json_and_nothing_is_a_pickle(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, tensors(1), {"seed": 7}, 2)
    assert json.loads((path / "manifest.json").read_text())["seed"] == 7
    assert {file.name for file in path.iterdir()} == {"manifest.json", "state.safetensors"}
