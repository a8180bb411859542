"""Modules and optimisers as flat named tensors, and back: what checkpoints are made of."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def optimizer_tensors(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as flat tensors: `prefix/<parameter>/<name>`."""
    return {
        f"{prefix}/{index}/{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizer(prefix: str, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in under(prefix, tensors):
        index, key = name.split("/")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def module_tensors(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """Parameters (a tied one once) and buffers as flat tensors."""
    return {f"{prefix}/{name}": p for name, p in _owned(module)}


@torch.no_grad()
def restore_module(prefix: str, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    stored = dict(under(prefix, tensors))
    for name, p in _owned(module):
        p.copy_(stored[name])


def _owned(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def under(prefix: str, tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors whose names begin with `prefix/`, by the rest of these."""
    for name, value in tensors.items():
        if name.startswith(prefix + "/"):
            yield name.removeprefix(prefix + "/"), value
