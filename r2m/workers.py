"""The data-parallel workers as the algorithm sees them: who am I, how many are we, add this up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Workers:
    """Worker `rank` of `size`. Query i of a round, with all its responses, is on worker i mod size."""

    rank: int = 0
    size: int = 1

    def own(self, n: int) -> range:
        """The global indices of this worker's queries, out of n. Any minibatch of consecutive queries of one
        worker's run is then consecutive on each of several workers, and the union is the same set."""
        return range(self.rank, n, self.size)

    def sum(self, x: Tensor) -> Tensor:
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def gather(self, x_N: Tensor) -> Tensor:
        """All workers' rows (equally many each) in the round's global order."""
        if self.size == 1:
            return x_N
        parts = [torch.empty_like(x_N) for _ in range(self.size)]
        dist.all_gather(parts, x_N.contiguous())
        return torch.stack(parts, 1).flatten(0, 1)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the gradients up over the workers, in one message."""
        if self.size == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat)
        for grad, summed in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(summed.view_as(grad))
