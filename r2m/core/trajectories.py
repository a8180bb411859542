"""The sampled batch of a round, and the slices of it that a forward takes.

Axes: N queries, K responses of each, P prompt tokens (padded on the left), R response tokens (padded on the
right, the end token included).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Trajectories:
    """Masks come from lengths that are known, never from comparing ids with a padding id."""

    prompt_ids_NP: Tensor
    prompt_mask_NP: Tensor  # bool
    response_ids_NKR: Tensor
    response_mask_NKR: Tensor  # bool; its first token is always real
    sampler_log_probs_NKR: Tensor  # fp32, of the engine that sampled
    ended_NK: Tensor  # bool: the response has its end token

    @property
    def lengths_NK(self) -> Tensor:
        return self.response_mask_NKR.sum(-1)

    def block(self, queries: slice, responses: slice = slice(None)) -> Trajectories:
        """Some queries with some of their responses, without the columns that are padding in all of them."""
        prompt_mask = self.prompt_mask_NP[queries]
        response_mask = self.response_mask_NKR[queries, responses]
        left = self.prompt_mask_NP.shape[1] - int(prompt_mask.sum(-1).max())
        width = int(response_mask.sum(-1).max())
        return Trajectories(
            prompt_ids_NP=self.prompt_ids_NP[queries, left:],
            prompt_mask_NP=prompt_mask[:, left:],
            response_ids_NKR=self.response_ids_NKR[queries, responses, :width],
            response_mask_NKR=response_mask[..., :width],
            sampler_log_probs_NKR=self.sampler_log_probs_NKR[queries, responses, :width],
            ended_NK=self.ended_NK[queries, responses],
        )

    def to(self, device: torch.device | str) -> Trajectories:
        return Trajectories(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def microbatches(queries: range, K: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Slices of at most `size` trajectories: whole groups where they fit, else parts of one group.

    `size` is a multiple or a divisor of K.
    """
    groups = max(1, size // K)
    part = min(size, K)
    for start in range(queries.start, queries.stop, groups):
        for k in range(0, K, part):
            yield slice(start, min(start + groups, queries.stop)), slice(k, k + part)


def split(n: int, parts: int) -> list[range]:
    """n queries as `parts` ranges of equal length."""
    size = n // parts
    return [range(i * size, (i + 1) * size) for i in range(parts)]
