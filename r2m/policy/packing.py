"""Linear layers in the layout that the CPU's kernels read, for as long as many small products use the same weights.

A product of few rows with a weight as it is stored spends a third to a half of its time on bringing the weight into
that layout, for every token anew.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from r2m.limits import PACKED

FEWEST_ROWS = 2  # one alone gains nothing


@contextmanager
def packed(model: nn.Module, rows: int) -> Iterator[None]:
    """Within, fp32 linear layers on a CPU run on a packed copy of their weights, for products of about `rows` rows.

    Without gradients; the weights must not change. It takes as much memory again as they do.
    """
    layers = [m for m in model.modules() if type(m) is nn.Linear and _fits(m.weight)]
    if rows < FEWEST_ROWS or sum(m.weight.numel() for m in layers) < PACKED:
        layers = []
    for m in layers:
        vars(m)["forward"] = _forward(m)
    try:
        yield
    finally:
        for m in layers:
            del vars(m)["forward"]


def _fits(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()


def _forward(m: nn.Linear) -> Callable[[Tensor], Tensor]:
    weight = torch.ops.mkldnn._reorder_linear_weight(m.weight.detach())
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, weight, m.bias, "none", [], "")
