"""Which queries a round takes: seeded permutations of the data, pass after pass, with no state to save."""

import torch

from r2m.core.seeds import generator


def query_indices(total: int, n: int, step: int, seed: int) -> list[int]:
    """Indices of the n queries of round `step` (from 1) out of `total`; every pass is a new permutation."""
    first, last = (step - 1) * n, step * n
    indices: list[int] = []
    for epoch in range(first // total, (last - 1) // total + 1):
        order = torch.randperm(total, generator=generator("queries", seed, epoch)).tolist()
        indices += order[max(first - epoch * total, 0) : last - epoch * total]
    return indices
