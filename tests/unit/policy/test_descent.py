"""AdamW on fp32 weights: by hand, and below what bfloat16 can hold."""

import math

import pytest
import torch
from torch import nn

from r2m.policy.descent import Descent
from r2m.workers import Workers


def descent(layer: nn.Module, lr: float) -> Descent:
    return Descent(
        layer.named_parameters(), lr, adam_eps=1e-8, weight_decay=0.0, max_grad_norm=1.0, workers=Workers()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_worked_step(dtype: torch.dtype) -> None:
    """Gradient (3, 4) has norm 5. AdamW's first step is lr in each direction, whatever the gradient's size."""
    layer = nn.Linear(2, 1, bias=False, dtype=dtype)
    nn.init.zeros_(layer.weight)
    optimiser = descent(layer, 0.5)
    layer(torch.tensor([[3.0, 4.0]], dtype=dtype)).sum().backward()
    assert optimiser.step() == pytest.approx(5.0)
    torch.testing.assert_close(layer.weight.detach().float(), torch.tensor([[-0.5, -0.5]]), atol=1e-5, rtol=0)
    assert layer.weight.grad is None
    assert optimiser.masters["weight"].grad is None


def test_a_step_is_cut_to_the_greatest_norm() -> None:
    """Moments of the clipped gradient: (0.6, 0.8), a tenth of it after one step."""
    layer = nn.Linear(2, 1, bias=False)
    optimiser = descent(layer, 0.5)
    layer(torch.tensor([[3.0, 4.0]])).sum().backward()
    optimiser.step()
    (state,) = optimiser.optimizer.state.values()
    torch.testing.assert_close(state["exp_avg"], torch.tensor([[0.06, 0.08]]), atol=1e-6, rtol=0)


def test_the_rate_of_a_step_is_the_one_that_it_is_given() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    optimiser = descent(layer, 0.5)
    layer(torch.ones(1, 1)).sum().backward()
    optimiser.step(0.25)
    assert layer.weight.item() == pytest.approx(-0.25)


def test_200_updates_of_a_millionth_arrive_in_bfloat16() -> None:
    """Each alone is lost: the last digit of 1 in bfloat16 is 1/128. Together they are seen in the master, and a step
    of the parameter itself once they come to half a digit."""
    layer = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    nn.init.ones_(layer.weight)
    optimiser = descent(layer, 1e-6)
    for _ in range(200):
        layer(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        optimiser.step()
    assert optimiser.masters["weight"].item() == pytest.approx(1 - 200e-6, abs=5e-6)
    assert optimiser.masters["weight"].dtype == torch.float32
    small = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)  # a weight of the size that models have
    nn.init.constant_(small.weight, 0.01)
    optimiser = descent(small, 1e-6)
    for _ in range(200):
        small(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        optimiser.step()
    assert small.weight.item() == pytest.approx(0.01 - 200e-6, rel=0.005)  # plain bfloat16 stays where it is


def test_gradients_of_microbatches_are_added_in_fp32() -> None:
    """1 and a hundred times 1/512, each of which is lost beside 1 in bfloat16."""
    layer = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    optimiser = descent(layer, 1e-6)
    for size in [1.0] + [2.0**-9] * 100:
        layer(torch.full((1, 1), size, dtype=torch.bfloat16)).sum().backward()
    assert optimiser.step() == pytest.approx(1 + 100 / 512)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_gradient_changes_nothing(bad: float) -> None:
    layer = nn.Linear(1, 1, bias=False)
    before = layer.weight.item()
    optimiser = descent(layer, 0.5)
    layer(torch.full((1, 1), bad)).sum().backward()
    assert not optimiser.step() < math.inf
    assert layer.weight.item() == before
    assert not optimiser.optimizer.state


def test_what_is_frozen_has_no_part() -> None:
    layer = nn.Linear(1, 1)
    layer.bias.requires_grad_(False)
    assert descent(layer, 0.5).masters.keys() == {"weight"}
