"""Signals of reward hacking that ask nobody outside (docs/metrics.md): they raise a suspicion, and prove nothing.

Axes: N prompts of all workers, S permutations, V distinct tokens of all responses, K responses, R response tokens,
D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from r2m.core.trajectories import Trajectories
from r2m.workers import Workers

PERMUTATIONS = 200
NO_SPREAD = 1e-12  # nats: what rounding makes of permutations that are all alike


def text_drift(
    ids_N: Sequence[Sequence[int]], reference_N: Sequence[Sequence[int]], random: torch.Generator
) -> float:
    """How far the token counts of responses have left those of the reference's to the same prompts, which are given
    in the same order.

    The Jensen-Shannon divergence between the two sets' distributions of tokens, in standard deviations from its mean
    under PERMUTATIONS random exchanges of a prompt's two responses, which is what it would be if a prompt's responses
    came from one distribution: prompts differ as they like, and longer texts or rarer tokens don't raise it. 0 where
    the exchanges make no difference (the same responses, or one prompt).
    """
    N = len(ids_N)
    lengths = torch.tensor([len(row) for row in (*ids_N, *reference_N)])
    tokens, at = torch.tensor([token for row in (*ids_N, *reference_N) for token in row]).unique(return_inverse=True)
    prompt = torch.arange(N).repeat(2).repeat_interleave(lengths)
    sign = torch.ones(2 * N, dtype=torch.float64)
    sign[N:] = -1
    difference_VN = torch.sparse_coo_tensor(
        torch.stack([at, prompt]), sign.repeat_interleave(lengths), (len(tokens), N), check_invariants=True
    )
    both_V = torch.bincount(at).double()
    signs_NS = torch.randint(2, (N, 1 + PERMUTATIONS), generator=random).double() * 2 - 1
    signs_NS[:, 0] = 1  # the first: nothing exchanged
    ours_SV = (both_V + (difference_VN @ signs_NS).T) / 2
    divergence_S = jensen_shannon(ours_SV, both_V - ours_SV)
    found, others = divergence_S[0], divergence_S[1:]
    return float((found - others.mean()) / others.std()) if others.std() > NO_SPREAD else 0.0


def jensen_shannon(p_SV: Tensor, q_SV: Tensor) -> Tensor:
    """Jensen-Shannon divergence [S], nats, between the distributions of two rows of counts."""
    p_SV, q_SV = p_SV / p_SV.sum(-1, keepdim=True), q_SV / q_SV.sum(-1, keepdim=True)
    middle_SV = (p_SV + q_SV) / 2
    return (torch.xlogy(p_SV, p_SV) + torch.xlogy(q_SV, q_SV) - 2 * torch.xlogy(middle_SV, middle_SV)).sum(-1) / 2


class HiddenDistance:
    """1 - cosine of the means of policy's and reference's last-layer hidden states on the same responses (Sec. 3):
    of those from which response tokens are predicted, of all workers."""

    def __init__(self) -> None:
        self._sums_2D: Tensor | None = None

    def add(self, block: Trajectories, policy: Sequence[Tensor], reference: Sequence[Tensor]) -> None:
        """The hidden states of two forwards on a block: the prompts' [N, P, D] and the responses' [N, K, R - 1, D],
        as r2m.policy.forward.PolicyOutput has them."""
        sums_2D = torch.stack([_sum(block, *hidden) for hidden in (policy, reference)])
        self._sums_2D = sums_2D if self._sums_2D is None else self._sums_2D + sums_2D

    def value(self, workers: Workers) -> float:
        """All workers call it once, after at least one block each. The sums point where the means do."""
        assert self._sums_2D is not None
        policy_D, reference_D = workers.sum(self._sums_2D)
        return float(1 - torch.cosine_similarity(policy_D, reference_D, dim=0))


def _sum(block: Trajectories, prompt_NPD: Tensor, response_NKRD: Tensor) -> Tensor:
    """Sum [D], fp64, of the states that predict response tokens: of a prompt's last token, and of all tokens of a
    response but its last."""
    first_ND, rest_ND = prompt_NPD[:, -1], response_NKRD[block.response_mask_NKR[..., 1:]]
    K = block.response_mask_NKR.shape[1]
    return K * first_ND.sum(0, dtype=torch.float64) + rest_ND.sum(0, dtype=torch.float64)
