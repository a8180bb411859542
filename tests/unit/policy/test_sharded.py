"""Policies spread by DeepSpeed over two processes, against replicated ones: everything is spread, however small.

Two workers do all that the tests look at, once; a third is alone. Axes: N queries, K responses, R tokens.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from forked import start_workers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig, PreTrainedConfig, Qwen2Config

from r2m.config import Algorithm, Config, Lora, Policy, load, validate
from r2m.core.trajectories import Trajectories
from r2m.errors import UserError
from r2m.policy import forward, zero
from r2m.policy.loading import frozen_twin
from r2m.policy.lora import add_adapters
from r2m.policy.policy import TrainedPolicy
from r2m.policy.recompute import recompute_activations
from r2m.policy.sharded import ShardedPolicy
from r2m.policy.whole import WholePolicy
from r2m.training.trainer import Trainer
from r2m.workers import Workers

SETTINGS = {
    "none": Policy(), "zero1": Policy(sharding="zero1"), "zero2": Policy(sharding="zero2"),
    "zero2, optimizer offloaded": Policy(sharding="zero2", offload="optimizer"), "zero3": Policy(sharding="zero3"),
    "zero3, all offloaded": Policy(sharding="zero3", offload="all"),
}  # fmt: skip
SHARDED = [name for name in SETTINGS if name != "none"]
RECOMPUTED = {
    "zero2, recomputed": Policy(sharding="zero2", recompute=True),
    "zero3, recomputed": Policy(sharding="zero3", recompute=True),
}
ARMS = {"RLOO": "reward.feedback=off", "R2M": "reward.feedback=on"}
SMALL: dict[str, Any] = {
    "vocab_size": 12, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip
FAMILIES: dict[str, PreTrainedConfig] = {
    "Llama": LlamaConfig(**SMALL, num_key_value_heads=2),
    "Qwen2, tied": Qwen2Config(**SMALL, num_key_value_heads=2, tie_word_embeddings=True),
    "GPT-NeoX": GPTNeoXConfig(**SMALL),
    "Llama, adapters": LlamaConfig(**SMALL, num_key_value_heads=2),
}
STEPS = (
    [("Llama", name) for name in SHARDED]
    + [(family, name) for family in list(FAMILIES)[1:] for name in ("zero2", "zero3")]
    + [("Qwen2, tied", name) for name in RECOMPUTED]
)
TOLERANCE = 1e-5
PART = re.compile(r"policy_shard/.*/(master|exp_avg)")


def worker(rank: int, folder: Path, trees: dict[str, Any], models: tuple[str, str]) -> None:
    torch.set_num_threads(1)
    zero.KEEP_WHOLE = 0
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    if rank == 2:
        trained, _ = rounds(trees["R2M"], "zero3", models, Workers(), folder / "alone")
        save_file(trained, folder / "alone.safetensors")
        return
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    workers, found = Workers(rank, 2), {}
    for arm, tree in trees.items():
        for name in SETTINGS:
            out = folder / arm / name
            weights, found[f"{arm}/{name}"] = rounds(tree, name, models, workers, out)
            save_file(weights, folder / f"{arm}-{name}-{rank}.safetensors")
    for family, name in STEPS:
        if name in RECOMPUTED:
            forward.LOGITS_RECOMPUTED = 60  # some tokens at a time
        found[f"{family}/{name}"] = steps(family, name, workers)
    for name in ("zero1", "zero2", "zero3"):
        found[f"bad/{name}"] = bad_gradients(name, workers)
        if name != "zero1":  # in bfloat16 DeepSpeed's second stage
            found[f"bfloat16/{name}"] = small_updates(name, workers)
    (folder / f"found-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def rounds(
    tree: dict[str, Any], name: str, models: tuple[str, str], workers: Workers, out: Path
) -> tuple[dict[str, Tensor], Any]:
    """Three rounds; the last again from a checkpoint, by a trainer of its own."""
    config = validate(tree | {"policy": tree["policy"] | SETTINGS[name].model_dump(include={"sharding", "offload"})})
    config = config.model_copy(update={"run": config.run.model_copy(update={"workers": workers.size})})
    trainer = Trainer(config, models, workers)
    out.mkdir(parents=True, exist_ok=True)
    trainer.check_export(out)
    metrics = []
    for r in trainer.rounds(1):
        metrics.append(r.metrics | (trainer.evaluate(3).metrics if r.step == 3 else {}))
        if r.step == 2:
            trainer.save(out / "checkpoints", 2)
    trained = whole(trainer.policy)
    exact = None
    if name != "none" and config.reward.feedback:
        again = Trainer(config, models, workers)
        assert again.restore(out / "checkpoints", pytest.fail) == 2
        (r,) = again.rounds(3)
        resumed = whole(again.policy)
        exact = {key: bool(torch.equal(trained[key], resumed[key])) for key in trained}
        exact |= {key: metrics[-1][key] == r.metrics[key] for key in r.metrics if not timed(key)}
        exact["reference"] = all(
            torch.equal(a, b)
            for (_, a), b in zip(sorted(whole(trainer.policy, reference=True).items()), start_of(models), strict=True)
        )
    trainer.export(out)
    return trained, {"metrics": metrics, "exact": exact}


def timed(key: str) -> bool:
    return key.startswith(("time/", "speed/", "memory/"))


def start_of(models: tuple[str, str]) -> list[Tensor]:
    return [p for _, p in sorted(load_file(Path(models[0]) / "model.safetensors").items())]


def whole(policy: TrainedPolicy, reference: bool = False) -> dict[str, Tensor]:
    with policy.whole(reference=reference) as model:
        return {name: p.detach().clone() for name, p in model.named_parameters()}


def trajectories(rank: int) -> Trajectories:
    """Of two queries with three responses each: on worker 0 all of one token, on the other of up to eight."""
    random = torch.Generator().manual_seed(rank)
    P, R = (5, 1) if rank == 0 else (3, 8)
    lengths_NK = torch.ones(2, 3) if rank == 0 else torch.tensor([[8, 1, 3], [2, 8, 5]])
    return Trajectories(
        torch.randint(12, (2, P), generator=random), torch.arange(P).flip(0) < torch.tensor([[P], [2]]),
        torch.randint(12, (2, 3, R), generator=random), torch.arange(R) < lengths_NK[..., None],
        torch.zeros(2, 3, R), torch.ones(2, 3, dtype=torch.bool),
    )  # fmt: skip


def made(family: str, name: str, workers: Workers, dtype: torch.dtype = torch.float32, **a: Any) -> TrainedPolicy:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(FAMILIES[family], dtype=dtype).eval()
    twin = None
    if "adapters" in family:
        add_adapters(model, Lora(rank=2), 0)
    else:
        twin = frozen_twin(model, share=name != "none")
    if name in RECOMPUTED:
        recompute_activations(model, "")
    settings = Algorithm(rounds=1, queries=4, **{"lr": 1e-2, "adam_eps": 1e-4, "weight_decay": 0.1} | a)
    if name == "none":
        return WholePolicy(model, twin, settings, workers)
    return ShardedPolicy(model, twin, (SETTINGS | RECOMPUTED)[name], settings, workers, "cpu")


def loss_of(policy: TrainedPolicy, t: Trajectories) -> Tensor:
    return (policy.forward(t, 0.7).log_probs_NKR * t.response_mask_NKR).sum() / 10


def steps(family: str, name: str, workers: Workers) -> dict[str, float]:
    """Two steps of three backwards each on responses of very different lengths; the greatest differences."""
    t, ours, theirs = trajectories(workers.rank), made(family, name, workers), made(family, "none", workers)
    differences: dict[str, float] = {}

    def compare(what: str, a: Tensor, b: Tensor) -> None:
        differences[what] = max(differences.get(what, 0.0), float((a - b).abs().max()))

    for step in range(2):
        for p in (ours, theirs):
            for part in (t.block(slice(0, 1)), t.block(slice(1, 2)), t):
                p.backward(loss_of(p, part))
        compare("norm", *(torch.tensor(p.step(3e-3 / (step + 1))) for p in (ours, theirs)))
        with torch.no_grad():
            a, b = (p.forward(t, 0.7, entropy=True) for p in (ours, theirs))
            c, d = (p.reference(t, 0.7) for p in (ours, theirs))
        mask = t.response_mask_NKR
        compare("log-probs", a.log_probs_NKR[mask], b.log_probs_NKR[mask])
        compare("entropy", a.entropy_NKR[mask], b.entropy_NKR[mask])
        compare("prompt", a.prompt_hidden_NPD[t.prompt_mask_NP], b.prompt_hidden_NPD[t.prompt_mask_NP])
        if mask.shape[-1] > 1:
            compare("response", a.response_hidden_NKRD[mask[..., 1:]], b.response_hidden_NKRD[mask[..., 1:]])
        compare("reference", c.log_probs_NKR[mask], d.log_probs_NKR[mask])
    given, expected = dict(ours.weights()), dict(theirs.weights())
    assert list(given) == list(expected)
    for (
        key
    ) in expected:  # outside the loop that gave them they may be elsewhere again: `weights` is to be read in turn
        assert given[key].dtype == torch.float32
    for (key, a), (_, b) in zip(ours.weights(), theirs.weights(), strict=True):
        compare("weights", a, b)
        assert key in expected
    return differences


def small_updates(name: str, workers: Workers) -> dict[str, Any]:
    """50 updates of four millionths in bfloat16: how far the fp32 masters have come."""
    policy = made("Llama", name, workers, torch.bfloat16, adam_eps=1e-8, weight_decay=0.0)
    t = trajectories(1).block(slice(1), slice(1, 3))
    before, start = whole(policy), masters(policy)
    for _ in range(50):
        policy.backward(loss_of(policy, t))
        policy.step(4e-6)
    moved = (masters(policy) - start).abs()
    rounded = sum(int((a != b).sum()) for a, b in zip(before.values(), whole(policy).values(), strict=True))
    return {
        "moved": float(moved.quantile(0.5)), "dtype": str(masters(policy).dtype), "rounded": rounded,
        "compute": str(policy.forward(t, 0.7).response_hidden_NKRD.dtype),
    }  # fmt: skip


def masters(policy: TrainedPolicy) -> Tensor:
    return torch.cat([value.detach().clone() for name, value in policy.state().items() if name.endswith("/master")])


def bad_gradients(name: str, workers: Workers) -> dict[str, Any]:
    """What a gradient that is not finite, on one worker alone, does; and what one does that comes after it."""
    policy, t, found = made("Llama", name, workers), trajectories(0), {}
    policy.backward(loss_of(policy, t))
    policy.step(1e-3)
    before = whole(policy) | {key: value.clone() for key, value in policy.state().items()}
    for bad in ("nan", "inf"):
        policy.backward(loss_of(policy, t) * (float(bad) if workers.rank else 1.0))
        found[bad] = str(policy.step(1e-3))
    after = whole(policy) | policy.state()
    found["same"] = all(torch.equal(before[key], after[key]) for key in before)
    policy.backward(loss_of(policy, t))
    found["then"] = policy.step(1e-3)
    foreign = policy.state() | {"policy_shard/of": torch.tensor([workers.rank, 3])}
    for what, tensors in (("other", foreign), ("none", {})):
        with pytest.raises(UserError) as error:
            policy.restore(tensors)
        found[what] = str(error.value)
    return found


class Found:
    """What the workers left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.of_worker = [json.loads((folder / f"found-{rank}.json").read_text()) for rank in (0, 1)]

    def __getitem__(self, key: str) -> list[Any]:
        return [found[key] for found in self.of_worker]

    def weights(self, arm: str, name: str, rank: int = 0) -> dict[str, Tensor]:
        return load_file(self.folder / f"{arm}-{name}-{rank}.safetensors")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, forum_models: tuple[str, str]) -> Found:
    folder = tmp_path_factory.mktemp("sharded")
    trees = {arm: config_of(arm, forum_models, folder).model_dump(mode="json") for arm in ARMS}
    start_workers(worker, (folder, trees, forum_models), 3)
    return Found(folder)


def config_of(arm: str, models: tuple[str, str], folder: Path) -> Config:
    return load("forum", [
        f"policy.model={models[0]}", f"reward.model={models[1]}", f"run.storage={folder / 'storage'}", ARMS[arm],
        "task.posts=40", "task.held_out=4", "algorithm.queries=4", "algorithm.rounds=3", "algorithm.microbatch=4",
        "algorithm.max_response_tokens=8", "algorithm.temperature=0.8", "algorithm.lr=1e-3",
        "algorithm.adam_eps=1e-4", "algorithm.max_grad_norm=0.5", "reward.lr=1e-3", "reward.attention_width=16",
        "reward.num_heads=2", "run.device=cpu", "run.eval_queries=4",
    ])  # fmt: skip


def assert_close(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", SHARDED)
class TestRounds:
    @pytest.mark.parametrize("arm", ARMS)
    def test_metrics_are_those_of_replicated_workers(self, found: Found, arm: str, name: str) -> None:
        for ours, theirs in zip(found[f"{arm}/{name}"], found[f"{arm}/none"], strict=True):
            for a, b in zip(ours["metrics"], theirs["metrics"], strict=True):
                assert a.keys() == b.keys()
                compared = [key for key in b if not timed(key) and "error" not in key]
                assert {"train/policy_loss", "kl/sequence", "reward/proxy", "train/grad_norm"} <= set(compared)
                for key in compared:
                    assert a[key] == pytest.approx(b[key], rel=TOLERANCE, abs=TOLERANCE), key

    @pytest.mark.parametrize("arm", ARMS)
    def test_weights_are_those_of_replicated_workers(self, found: Found, arm: str, name: str) -> None:
        for rank in (0, 1):
            assert_close(found.weights(arm, name, rank), found.weights(arm, "none"))

    def test_a_resumed_round_is_the_same_to_the_last_bit(self, found: Found, name: str) -> None:
        for run in found[f"R2M/{name}"]:
            assert run["exact"]
            assert [key for key, same in run["exact"].items() if not same] == []

    def test_exports_are_those_of_replicated_workers(self, found: Found, name: str) -> None:
        for kind in ("policy", "reward"):
            ours, theirs = (load_file(found.folder / "R2M" / n / kind / "model.safetensors") for n in (name, "none"))
            assert_close(ours, theirs)
        reloaded = AutoModelForCausalLM.from_pretrained(found.folder / "R2M" / name / "policy")
        assert_close(dict(reloaded.named_parameters()), found.weights("R2M", name))  # type: ignore[arg-type]

    def test_a_checkpoint_has_a_part_of_each_worker(self, found: Found, name: str) -> None:
        (checkpoint,) = (found.folder / "R2M" / name / "checkpoints").iterdir()
        assert sorted(p.name for p in checkpoint.iterdir()) == [
            "manifest.json", "state-1.safetensors", "state.safetensors",
        ]  # fmt: skip
        whole = sum(p.numel() for p in found.weights("R2M", name).values())
        for file in ("state.safetensors", "state-1.safetensors"):
            parts = [
                t
                for key, t in load_file(checkpoint / file).items()
                if re.fullmatch(r"policy_shard/.*/(master|exp_avg)", key)
            ]
            assert sum(t.numel() for t in parts) == pytest.approx(2 * whole / 2, rel=0.01)


@pytest.mark.parametrize(("family", "name"), STEPS)
def test_steps_on_responses_of_one_token_and_of_many(found: Found, family: str, name: str) -> None:
    for differences in found[f"{family}/{name}"]:
        assert "weights" in differences
        assert {what: d for what, d in differences.items() if d > TOLERANCE} == {}


class TestSteps:
    @pytest.mark.parametrize("name", ["zero2", "zero3"])
    def test_updates_of_millionths_arrive_in_bfloat16(self, found: Found, name: str) -> None:
        for run in found[f"bfloat16/{name}"]:
            assert run["dtype"] == "torch.float32"
            assert run["compute"] == "torch.bfloat16"
            assert run["moved"] == pytest.approx(200e-6, rel=0.1)
            assert run["rounded"] > 100  # of some 4,000 bfloat16 weights, those that came to half a digit

    @pytest.mark.parametrize("name", ["zero1", "zero2", "zero3"])
    def test_a_gradient_that_is_not_finite_changes_nothing(self, found: Found, name: str) -> None:
        for run in found[f"bad/{name}"]:
            assert (run["nan"], run["inf"], run["same"]) == ("inf", "inf", True)
            assert 0 < run["then"] < 1e3

    @pytest.mark.parametrize("name", ["zero1", "zero2", "zero3"])
    def test_another_number_of_workers_is_refused_in_one_line(self, found: Found, name: str) -> None:
        for run in found[f"bad/{name}"]:
            assert run["other"] == "run.workers = 2: the checkpoint has the policy in 3 parts, one for each worker"
            assert "in one part" in run["none"]


def test_one_worker_alone(found: Found) -> None:
    assert_close(load_file(found.folder / "alone.safetensors"), found.weights("R2M", "none"))
