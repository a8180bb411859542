"""How alike the hidden states of responses are: within two kinds, across them, and over training (Table 1, Fig. 1).

A query-response pair is one vector, the mean over its tokens of the policy's last-layer hidden states (App. F.1).

Axes: B pairs, T tokens, D width; H hacking and N normal responses to one query, S policies along a training run.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from r2m.results.assessment import Similarities


def mean_token(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The vectors BD of pairs: means of their hidden states where the mask is true; zeros where it never is."""
    weights_BT1 = mask_BT.to(hidden_BTD.dtype).unsqueeze(-1)
    return (hidden_BTD * weights_BT1).sum(1) / weights_BT1.sum(1).clamp(min=1)


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of each row of a, [..., n, D], with each of b, [..., m, D]: [..., n, m]. A zero vector has cosine 0."""
    return F.normalize(a.double(), dim=-1) @ F.normalize(b.double(), dim=-1).mT


def by_kind(hacking_HD: Tensor, normal_ND: Tensor) -> Similarities:
    """Table 1's three numbers for the responses to one query.

    Raises ValueError for fewer than two responses of a kind, within which there is no pair.
    """
    if min(len(hacking_HD), len(normal_ND)) < 2:
        raise ValueError(f"{len(hacking_HD)} hacking and {len(normal_ND)} normal responses: two of each at least")
    return Similarities(
        _off_diagonal_mean(cosines(hacking_HD, hacking_HD)),
        _off_diagonal_mean(cosines(normal_ND, normal_ND)),
        float(cosines(hacking_HD, normal_ND).mean()),
    )


def over_training(vectors_SBD: Tensor) -> Tensor:
    """Of each pair, the cosines between its vectors under the S policies: [B, S, S] (Fig. 1b)."""
    vectors_BSD = vectors_SBD.transpose(0, 1)
    return cosines(vectors_BSD, vectors_BSD)


def _off_diagonal_mean(matrix: Tensor) -> float:
    return float(matrix[~torch.eye(len(matrix), dtype=torch.bool)].mean())
