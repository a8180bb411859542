"""The data-parallel workers as the algorithm sees them: who am I, how many are we, add this up."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

BUCKET = 2**25  # values: large enough for full bandwidth, small beside a model


@dataclass(frozen=True)
class Workers:
    """Worker `rank` of `size`. Query i of a round, with all its responses, is on worker i mod size."""

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> "Workers":
        """Those of the process group that this process is in, or this one alone."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    def own(self, n: int) -> range:
        """The global indices of this worker's queries, out of n. Any minibatch of consecutive queries of one
        worker's run is then consecutive on each of several workers, and the union is the same set."""
        return range(self.rank, n, self.size)

    def sum(self, x: Tensor) -> Tensor:
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def any(self, here: bool, device: torch.device | str) -> bool:
        """Whether it is so on any worker; `device`: where the workers exchange tensors."""
        return bool(self.sum(torch.tensor(float(here), device=device)) > 0)

    def gather(self, x_N: Tensor) -> Tensor:
        """All workers' rows (equally many each) in the round's global order."""
        if self.size == 1:
            return x_N
        parts = [torch.empty_like(x_N) for _ in range(self.size)]
        dist.all_gather(parts, x_N.contiguous())
        return torch.stack(parts, 1).flatten(0, 1)

    def gather_all(self, items: list[Any]) -> list[Any]:
        """All workers' objects, worker by worker."""
        if self.size == 1:
            return items
        parts: list[list[Any]] = [[]] * self.size
        dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def gather_rows(self, items: list[Any]) -> list[Any]:
        """All workers' objects (equally many each) in the round's global order, as `gather` has rows."""
        everything = self.gather_all(items)
        return [item for i in range(len(items)) for item in everything[i :: len(items)]]

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add the gradients up over the workers, in messages of about BUCKET values."""
        if self.size == 1:
            return
        bucket: list[Tensor] = []
        grads = [p.grad for p in parameters if p.grad is not None]
        for i, grad in enumerate(grads):
            bucket.append(grad)
            if i == len(grads) - 1 or sum(g.numel() for g in bucket) >= BUCKET:
                flat = torch.cat([g.flatten() for g in bucket])
                dist.all_reduce(flat)
                for g, summed in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                    g.copy_(summed.view_as(g))
                bucket = []
