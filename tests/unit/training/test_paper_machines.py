"""The paper's recipes on the machines that they name, and on smaller ones."""

import re

import pytest

from r2m.config import load, recipes
from r2m.config.load import recipe_path
from r2m.errors import UserError
from r2m.training.machine import Machine
from r2m.training.plan import Plan
from r2m.training.preflight import plan_for

PAPER = [r for r in recipes() if r.startswith(("ultrafeedback", "tldr"))]
WHOLE = [r for r in PAPER if not r.endswith("_lora")]


def machine(recipe: str) -> str:
    """That the recipe's file names."""
    named = re.findall(r"^# Machine: (\d+x\d+)\b", recipe_path(recipe).read_text(), re.M)
    assert len(named) == 1
    return str(named[0])


def on(recipe: str, machine: str, *overrides: str) -> Plan:
    return plan_for(load(recipe, overrides), assumed=Machine.assumed(machine))


def test_each_has_a_variant_with_adapters() -> None:
    assert len(WHOLE) == 4
    assert set(PAPER) == {*WHOLE, *(f"{r}_lora" for r in WHOLE)}
    assert {machine(f"{r}_lora") for r in WHOLE} == {"1x80"}
    assert [machine(r) for r in sorted(WHOLE)] == ["1x80", "2x80", "8x80", "2x80"]


@pytest.mark.parametrize(
    ("recipe", "smaller"),
    [
        ("ultrafeedback_llama3_8b", "8x40"),
        ("ultrafeedback_llama3_8b_lora", "1x40"),
        ("ultrafeedback_qwen2p5_3b", "2x48"),
        ("ultrafeedback_qwen2p5_3b_lora", "1x24"),
        ("tldr_pythia_1b", "1x24"),
        ("tldr_pythia_1b_lora", "1x16"),
        ("tldr_pythia_2p8b", "2x48"),
        ("tldr_pythia_2p8b_lora", "1x24"),
    ],
)
def test_it_fits_the_machine_that_it_names_and_no_smaller_one(recipe: str, smaller: str) -> None:
    count, gb = machine(recipe).split("x")
    p = on(recipe, machine(recipe))
    assert p.fits.startswith(f"fits {count} GPU")
    assert p.gpus + p.rollout_gpus <= int(count)
    assert p.peak_memory <= int(gb) * 1e9
    with pytest.raises(UserError, match=rf"^does not fit {count} GPU.* = \d+\.\d GiB") as raised:
        on(recipe, smaller)
    assert "\n" not in str(raised.value)


def test_too_few_gpus() -> None:
    with pytest.raises(
        UserError, match=r"^does not fit 5 GPUs of 74.5 GiB: run.workers = 2 and rollout.gpus = 4: .* 5$"
    ):
        on("ultrafeedback_llama3_8b", "5x80")


@pytest.mark.parametrize("recipe", WHOLE)
def test_adapters_change_nothing_else_that_determines_the_result(recipe: str) -> None:
    whole, adapters = load(recipe), load(f"{recipe}_lora")
    assert adapters.recipe == f"{recipe}_lora"
    assert (adapters.task, adapters.reward) == (whole.task, whole.reward)
    assert adapters.algorithm == whole.algorithm.model_copy(update={"lr": adapters.algorithm.lr})
    assert adapters.policy.lora is not None


@pytest.mark.parametrize("text", ["8", "8x", "x80", "0x80", "8x0", "8x80x2", "-1x80", "8x8e1", "٨x80", "8 x 80", ""])
def test_a_machine_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match=r"^--assume .*: expected GPUs x GB of each, such as 8x80$"):
        Machine.assumed(text)


def test_a_gb_is_a_billion_bytes() -> None:
    assert Machine.assumed("8x80") == (8, pytest.approx(74.5, abs=0.01))


def test_cpus_are_not_assumed() -> None:
    with pytest.raises(UserError, match=r"^--assume: it plans for GPUs, and run.device = 'cpu'"):
        on("forum", "8x80", "run.device=cpu")
    assert on("forum", "8x80").device == "gpu"
