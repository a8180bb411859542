"""Data-parallel workers: real processes over gloo against one. Axes: N queries of a worker, K responses."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forked import start_workers
from torch import Tensor, nn

from r2m.config import Config, validate
from r2m.training.trainer import Trainer
from r2m.workers import Workers

MakeConfig = Callable[..., Config]

# The second case has the normalisers that depend on all workers' tokens, and the end token rule off.
CASES = (
    ("algorithm.minibatches=1",),
    ("algorithm.minibatches=2", "algorithm.loss_aggregation=token_mean", "reward.no_eos=keep"),
    # What is taken over the whole round: REINFORCE++'s mean and deviation, the noise's.
    ("algorithm.advantage=reinforce_pp", "algorithm.kl_placement=reward", "algorithm.kl_estimator=k1"),
    ("algorithm.advantage=remax", "reward.hidden=noise", "reward.no_eos=keep"),
    ("reward.labels=2", "reward.anchor=0.5"),  # the same groups, and the same pairs
    ("policy.lora.rank=4", "algorithm.lr=1e-2"),  # so far that a KL is not of rounding
)


CASES_OF_THREE = (
    ("algorithm.queries=6", "run.eval_queries=6", "algorithm.minibatches=2", "algorithm.loss_aggregation=token_mean"),
)
TOLERANCE = 1e-5  # relative: of fp32 sums in another order


def run_rounds(config: Config, models: tuple[str, str], workers: Workers) -> tuple[dict[str, Tensor], list[dict]]:
    """All rounds as a worker runs them: the weights at the end, and every round's metrics."""
    trainer = Trainer(config, models, workers)
    metrics = []
    for r in trainer.rounds(1):
        observed, _ = trainer.observe(r)
        metrics.append(r.metrics | observed | trainer.evaluate(r.step).metrics)
    assert trainer.head is not None
    return trainer.policy.model.state_dict() | trainer.head.state_dict(), metrics


def worker(rank: int, size: int, cases: list[dict], models: tuple[str, str], folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    workers = Workers.here()
    assert workers == Workers(rank, size)
    rows = torch.arange(3.0)[:, None] * size + rank  # of two workers those of the queries 0 2 4 and 1 3 5
    assert workers.gather(rows).flatten().tolist() == list(range(3 * size))
    assert workers.sum(torch.tensor([1.0, rank])).tolist() == [size, sum(range(size))]
    assert workers.gather_all([rank, "x"]) == [item for r in range(size) for item in (r, "x")]
    layer = nn.Linear(2, 2)
    layer.weight.grad = torch.full((2, 2), rank + 1.0)  # and none of the bias
    workers.sum_gradients(layer.parameters())
    assert layer.weight.grad.tolist() == [[sum(range(size + 1))] * 2] * 2
    assert layer.bias.grad is None
    for i, tree in enumerate(cases):
        weights, metrics = run_rounds(validate(tree), models, workers)
        torch.save(weights, folder / f"weights-{i}-{rank}.pt")
        (folder / f"metrics-{i}-{rank}.json").write_text(json.dumps(metrics))
    dist.destroy_process_group()


@pytest.mark.parametrize(("size", "cases"), [(2, CASES), (3, CASES_OF_THREE)])
def test_several_workers_give_the_updates_of_one(
    make_config: MakeConfig,
    forum_models: tuple[str, str],
    tmp_path: Path,
    size: int,
    cases: Sequence[tuple[str, ...]],
) -> None:
    configs = [make_config("algorithm.rounds=2", *case) for case in cases]
    trees = [c.model_dump(mode="json") for c in configs]
    start_workers(worker, (size, trees, forum_models, tmp_path), size)
    for i, config in enumerate(configs):
        expected, expected_metrics = run_rounds(config, forum_models, Workers())
        start = Trainer(config, forum_models, Workers()).policy.model.state_dict()
        moved = max(float((expected[name] - start[name]).abs().max()) for name in start)
        assert moved > 1e-3  # a hundred times the tolerance
        for rank in range(size):
            weights = torch.load(tmp_path / f"weights-{i}-{rank}.pt")
            for name, weight in expected.items():
                off = (weights[name] - weight).abs().max() / max(weight.abs().max(), moved)
                assert off < TOLERANCE, name
            metrics = json.loads((tmp_path / f"metrics-{i}-{rank}.json").read_text())
            for one, several in zip(expected_metrics, metrics, strict=True):
                assert one.keys() == several.keys()
                for key, value in one.items():
                    if "log_prob_error" in key or key.endswith("ratio_error_first_minibatch"):
                        assert several[key] < 1e-5  # of rounding alone, whoever does it
                    elif key.split("/")[0] not in ("time", "speed", "memory"):
                        # a sum of terms of either sign is held against the terms
                        least = TOLERANCE * one["train/advantage_std"] * (key == "train/policy_loss")
                        assert several[key] == pytest.approx(value, rel=TOLERANCE, abs=least, nan_ok=True), key


@pytest.mark.parametrize("minibatches", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_minibatches_are_the_same_queries_on_any_number_of_workers(minibatches: int, size: int) -> None:
    n = 24
    part = n // minibatches
    own = [list(Workers(rank, size).own(n)) for rank in range(size)]
    assert sorted(i for queries in own for i in queries) == list(range(n))
    for j in range(minibatches):
        local = part // size
        minibatch = {i for queries in own for i in queries[j * local : (j + 1) * local]}
        assert minibatch == set(range(j * part, (j + 1) * part))


def test_one_worker_needs_no_process_group() -> None:
    rows = torch.arange(4.0)
    assert torch.equal(Workers().gather(rows), rows)
    assert torch.equal(Workers().sum(rows), rows)
    assert Workers().gather_all(["a"]) == ["a"]
    assert list(Workers().own(3)) == [0, 1, 2]
    Workers().sum_gradients(nn.Linear(2, 2).parameters())
