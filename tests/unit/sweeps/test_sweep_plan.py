"""How many trials fit at once, worked by hand: a trial's worker takes 10 GiB of its own, 5 GiB are shared."""

from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from r2m.errors import UserError
from r2m.sweeps.plan import CUDA, PROCESS, RAY, SweepPlan, plan_sweep, sweep_plan_table
from r2m.training.plan import GIB, Plan

CPU = Plan(
    recipe="r", rounds=10, round_trajectories=48, left_over=0, policy_steps=20, head_steps=10,
    omega_settles=5.0, prompt_tokens=20, device="cpu", workers=1, gpus=0,
    memory={
        "policy weights": 2 * GIB, "AdamW states": 4 * GIB, "reference": 2 * GIB, "reward model": 3 * GIB,
        "hidden states": GIB,
    },
    mapped=frozenset({"reference", "reward model"}),
    phases={"sampling": GIB, "policy update": 3 * GIB},
    checkpoint=6 * GIB, checkpoints=3, export=5 * GIB, notes=(),
)  # fmt: skip
OWN, SHARED = (10 * GIB + PROCESS) / GIB, (5 * GIB + RAY) / GIB
GPU = replace(CPU, device="gpu", gpus=1, mapped=frozenset())
ON_GPU = (15 * GIB + CUDA) / GIB


def fit(*plans: Plan, **room: Any) -> SweepPlan:
    return plan_sweep(plans, **{"runs": 20, "cpus": 1000, "gpus": 0, "node_gib": 1000.0} | room)


class TestOnCpus:
    def test_cpus_bind(self) -> None:
        p = fit(CPU, cpus=4)
        assert (p.concurrent, p.limit, p.nested, p.workers, p.cpus) == (4, "CPUs", False, 1, 1)

    def test_memory_binds_and_counts_the_frozen_models_once(self) -> None:
        assert fit(CPU, node_gib=SHARED + 3 * OWN + 0.01).concurrent == 3
        p = fit(CPU, node_gib=SHARED + 3 * OWN - 0.01)
        assert (p.concurrent, p.limit) == (2, "memory")
        # Were they copied, a third would not fit where it does.
        copied = replace(CPU, mapped=frozenset())
        assert fit(copied, node_gib=SHARED + 3 * OWN + 0.01).concurrent == 2

    def test_what_is_whose(self) -> None:
        p = fit(CPU)
        assert p.worker == {
            "process": PROCESS, "policy weights": 2 * GIB, "AdamW states": 4 * GIB, "hidden states": GIB,
            "policy update": 3 * GIB,
        }  # fmt: skip
        assert p.shared == {"reference": 2 * GIB, "reward model": 3 * GIB, "Ray and the sweep": RAY}
        assert (p.device_memory, p.drivers, p.gpu_share) == ({}, 0, 0)

    def test_the_worst_of_each_part(self) -> None:
        wide = replace(CPU, memory=CPU.memory | {"feedback head, trained": 2 * GIB, "hidden states": 0})
        long = replace(CPU, phases={"sampling": 7 * GIB}, rounds=5, round_trajectories=100)
        p = fit(CPU, wide, long)
        assert sum(p.worker.values()) == PROCESS + (2 + 4 + 1 + 2 + 7) * GIB
        assert p.trajectories == 20 * 500

    def test_several_workers_are_nested(self) -> None:
        two = replace(CPU, workers=2)
        p = fit(two, cpus=5)  # 2 * 2.01 = 4.02
        assert (p.concurrent, p.nested, p.cpus) == (2, True, 2.01)
        assert fit(two, cpus=4).concurrent == 1
        # The two nodes' CPUs may each have a driver on them, and then 3 + 3 for workers: one trial of four.
        four = replace(CPU, workers=4)
        assert fit(four, cpus=8, nodes=2).concurrent == 1
        assert fit(four, cpus=10, nodes=2).concurrent == 2

    def test_memory_of_nested_trials(self) -> None:
        two = replace(CPU, workers=2)
        trial = (2 * OWN * GIB + 2 * PROCESS) / GIB
        assert fit(two, node_gib=SHARED + 2 * trial + 0.01).concurrent == 2
        assert fit(two, node_gib=SHARED + 2 * trial - 0.01).concurrent == 1

    def test_a_trial_may_span_nodes(self) -> None:
        three = replace(CPU, workers=3)
        node = SHARED + 2 * PROCESS / GIB + 2 * OWN + 0.01
        assert fit(three, node_gib=node, nodes=2).concurrent == 1
        with pytest.raises(UserError):
            fit(three, node_gib=node)

    def test_more_nodes(self) -> None:
        node = SHARED + 2 * OWN + 0.01
        p = fit(CPU, node_gib=node, nodes=3)
        assert (p.concurrent, p.limit) == (6, "memory")
        assert fit(CPU, node_gib=node, nodes=3, cpus=5).limit == "CPUs"


class TestOnGpus:
    def test_whole_gpus(self) -> None:
        p = fit(GPU, gpus=3, gpu_gib=80.0)
        assert (p.concurrent, p.limit, p.nested, p.gpu_share) == (3, "GPUs", True, 1)
        assert fit(replace(GPU, workers=2), gpus=3).concurrent == 1

    def test_shares(self) -> None:
        assert fit(GPU, gpus=2, gpu_share=0.25, gpu_gib=80.0).concurrent == 8
        assert fit(GPU, gpus=1, gpu_share=0.1).concurrent == 10
        # 0.4 of a GPU is of one GPU: two to each, not 3 / 0.4 = 7.
        assert fit(GPU, gpus=3, gpu_share=0.4).concurrent == 6

    def test_everything_is_the_workers_own(self) -> None:
        p = fit(GPU, gpus=1)
        assert sum(p.device_memory.values()) == ON_GPU * GIB
        assert p.shared == {"Ray and the sweep": RAY}
        # On the node: imports, and on its way to the GPU the larger model.
        assert p.worker == {"process": PROCESS, "loading": 3 * GIB}
        host = replace(GPU, host={"hidden states": 9 * GIB})
        assert fit(host, gpus=1).worker["hidden states"] == 9 * GIB

    def test_a_share_that_is_too_small(self) -> None:
        fit(GPU, gpus=1, gpu_share=0.5, gpu_gib=2 * ON_GPU + 0.01)
        line = r"budget.gpu_share = 0.5: a worker takes about CUDA 0.5 \+ .* = 15.5 GiB .* 0.5 .* 30.0 GiB is 15.0"
        with pytest.raises(UserError, match=line):
            fit(GPU, gpus=1, gpu_share=0.5, gpu_gib=30.0)

    def test_two_workers_of_a_run_share_no_gpu(self) -> None:
        with pytest.raises(UserError, match=r"budget.gpu_share = 0.5 with run.workers = 2: .*NCCL"):
            fit(replace(GPU, workers=2), gpus=4, gpu_share=0.5)

    def test_no_share_without_a_gpu(self) -> None:
        assert fit(CPU, gpu_share=0.5, gpus=2).gpu_share == 0


class TestAsked:
    def test_fewer_than_fit(self) -> None:
        p = fit(CPU, cpus=8, concurrent=3)
        assert (p.concurrent, p.limit) == (3, "budget.concurrent")
        assert fit(CPU, cpus=8, runs=2).limit == "runs"
        assert fit(CPU, cpus=8, concurrent=8).limit == "CPUs"

    def test_more_than_fit(self) -> None:
        with pytest.raises(
            UserError, match=r"^budget.concurrent = 5: 4 trials fit at once: a trial takes 1 CPU, .* 4$"
        ):
            fit(CPU, cpus=4, concurrent=5)
        line = (
            r"^budget.concurrent = 2: 1 trial fits at once: a trial takes 1 \* \(process 0.6 \+ policy weights 2.0 "
            r"\+ .* = 10.6 GiB\), and of a node's 20.0 GiB all trials share reference 2.0 \+ .* = 6.2 GiB$"
        )
        with pytest.raises(UserError, match=line):
            fit(CPU, node_gib=20.0, concurrent=2)

    def test_nothing_fits(self) -> None:
        with pytest.raises(UserError, match=r"^no trial fits at once: a trial takes 1 \* .*16.0 GiB all"):
            fit(CPU, node_gib=16.0)
        with pytest.raises(UserError, match=r"^no trial fits .* 3 CPUs and 0.01 for its driver, .* are 3$"):
            fit(replace(CPU, workers=3), cpus=3)
        with pytest.raises(UserError, match=r"takes 2 \* 1 GPUs, and there are 1$"):
            fit(replace(GPU, workers=2), gpus=1)


def test_disk(tmp_path: Path) -> None:
    p = fit(CPU, cpus=4)
    # Of a finished run 2 checkpoints of 6 and 5 of models; each of the 4 that run writes one more.
    assert p.disk == (20 * (2 * 6 + 5) + 4 * 6) * GIB
    replace(p, disk=1).check_disk(tmp_path / "not" / "there")
    with pytest.raises(UserError, match=r"20 runs take .*, and .* are free"):
        replace(p, disk=2**62).check_disk(tmp_path)


@pytest.mark.parametrize(
    ("p", "facts"),
    [
        (
            fit(CPU, cpus=4, concurrent=2),
            ["at most 9,600 in all", "2, limited by budget.concurrent (room for: CPUs 4,", "in the Tune process",
             "reward model │ 3.0 GiB a node", f"about {SHARED + 2 * OWN:.1f} GiB"],
        ),
        (
            fit(GPU, gpus=1, gpu_share=0.5, runs=7),
            ["nested Ray Train workers; CPUs: 1.01, 0.5 of a GPU each", "limited by GPUs", "on the GPU"],
        ),
    ],
)  # fmt: skip
def test_render(p: SweepPlan, facts: list[str]) -> None:
    out = StringIO()
    Console(file=out, width=140).print(sweep_plan_table(p))
    text = " ".join(out.getvalue().split())
    for fact in facts:
        assert fact in text
