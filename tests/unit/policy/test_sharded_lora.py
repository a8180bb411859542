"""Rounds with adapters at ZeRO's third stage over two processes, against replicated ones: everything is spread."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from forked import start_workers
from safetensors.torch import load_file, save_file
from torch import Tensor

from r2m.config import load, validate
from r2m.policy import zero
from r2m.training.trainer import Trainer
from r2m.workers import Workers

STAGES = "none", "zero3"
TOLERANCE = 1e-5


def worker(rank: int, folder: Path, tree: dict[str, Any], models: tuple[str, str]) -> None:
    torch.set_num_threads(1)
    zero.KEEP_WHOLE = 0
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    start = load_file(Path(models[0]) / "model.safetensors")
    for stage in STAGES:
        config = validate(tree | {"policy": tree["policy"] | {"sharding": stage}})
        trainer, again = (Trainer(config, models, Workers(rank, 2)) for _ in range(2))
        metrics: list[dict[str, float]] = []
        for r in trainer.rounds(1):
            metrics.append(r.metrics | (trainer.evaluate(3).metrics if r.step == 3 else {}))
            if r.step == 2:
                trainer.save(folder / stage / "checkpoints", 2)
        trained = adapters(trainer)
        assert again.restore(folder / stage / "checkpoints", pytest.fail) == 2
        for _ in again.rounds(3):
            pass
        resumed = adapters(again)
        assert all(torch.equal(trained[name], resumed[name]) for name in trained)
        with trainer.policy.whole(reference=True) as reference:
            own = {name.replace(".base_layer", ""): p for name, p in reference.named_parameters()}
            assert all(torch.equal(own[name], p) for name, p in start.items())
            assert all(layer.disable_adapters for layer in reference.modules() if hasattr(layer, "lora_A"))
        merged = {name: p.clone() for name, p in trainer.policy.weights()}
        trainer.export(folder / stage)
        if rank == 0:
            save_file(trained, folder / stage / "trained.safetensors")
            save_file(merged, folder / stage / "merged.safetensors")
            (folder / stage / "metrics.json").write_text(json.dumps(metrics))
    dist.destroy_process_group()


def adapters(trainer: Trainer) -> dict[str, Tensor]:
    with trainer.policy.whole() as model:
        return {name: p.detach().clone() for name, p in model.named_parameters() if ".lora_" in name}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, forum_models: tuple[str, str]) -> Path:
    folder = tmp_path_factory.mktemp("sharded-lora")
    config = load("forum", [
        f"policy.model={forum_models[0]}", f"reward.model={forum_models[1]}", f"run.storage={folder / 'storage'}",
        "policy.lora.rank=4", "task.posts=40", "task.held_out=4", "algorithm.queries=4", "algorithm.rounds=3",
        "algorithm.microbatch=4", "algorithm.max_response_tokens=8", "algorithm.temperature=0.8", "algorithm.lr=1e-2",
        "algorithm.adam_eps=1e-4", "reward.lr=1e-3", "reward.attention_width=16", "reward.num_heads=2",
        "run.device=cpu", "run.eval_queries=4", "run.workers=2",
    ])  # fmt: skip
    for stage in STAGES:
        (folder / stage).mkdir()
    start_workers(worker, (folder, config.model_dump(mode="json"), forum_models), 2)
    return folder


@pytest.mark.parametrize("stage", STAGES[1:])
class TestSharded:
    def test_rounds_are_those_of_replicated_workers(self, folder: Path, stage: str) -> None:
        ours, theirs = (json.loads((folder / s / "metrics.json").read_text()) for s in (stage, "none"))
        for a, b in zip(ours, theirs, strict=True):
            assert a.keys() == b.keys()
            for key in a:
                if not key.startswith(("time/", "speed/", "memory/")) and "error" not in key:
                    assert a[key] == pytest.approx(b[key], rel=TOLERANCE, abs=TOLERANCE), key

    @pytest.mark.parametrize("file", ["trained", "merged", "policy/adapter_model"])
    def test_weights_are_those_of_replicated_workers(self, folder: Path, stage: str, file: str) -> None:
        ours, theirs = (load_file(folder / s / f"{file}.safetensors") for s in (stage, "none"))
        assert ours.keys() == theirs.keys()
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=TOLERANCE, atol=TOLERANCE)
