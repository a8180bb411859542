"""Padding, positions, and log-probs of tokens.

Axes: B sequences, T tokens, D width, V vocabulary, N = B T. Masks are true at tokens and false at padding.
They come from known lengths: an id that equals the padding's may be a token.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from r2m.limits import LOGITS

NEVER = -1e30  # a logit, in place of -inf: its probability is 0, and 0 times its log-prob is not NaN


def pad(sequences: Sequence[Sequence[int]], pad_id: int, side: str) -> tuple[Tensor, Tensor]:
    """Token ids of unequal lengths as ids_BT (int64) and mask_BT (bool), padded on the "left" or the "right".

    Raises:
        ValueError: an unknown side.
    """
    if side not in ("left", "right"):
        raise ValueError(f"side is {side!r}, allowed: left, right")
    lengths = [len(sequence) for sequence in sequences]
    mask_BT = lengths_to_mask(torch.tensor(lengths, dtype=torch.long), max(lengths, default=0))
    if side == "left":
        mask_BT = mask_BT.flip(-1)
    ids_BT = torch.full(mask_BT.shape, pad_id, dtype=torch.long)
    ids_BT[mask_BT] = torch.tensor([token for sequence in sequences for token in sequence], dtype=torch.long)
    return ids_BT, mask_BT


def lengths_to_mask(lengths_B: Tensor, width: int) -> Tensor:
    """mask_BT (bool), true at the first lengths_B of T = width positions."""
    return torch.arange(width, device=lengths_B.device) < lengths_B.unsqueeze(-1)


def positions(mask_BT: Tensor) -> Tensor:
    """Position ids BT (int64), which count tokens from 0 and not padding; 0 before the first token."""
    return (mask_BT.long().cumsum(-1) - 1).clamp(min=0)


def scaled_logits(logits_NV: Tensor, temperature: float, unused_V: Tensor | None = None) -> Tensor:
    """Logits over the temperature, in fp32 at least, possibly in place; at `unused_V` too low for any probability."""
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32)).div_(temperature)
    return logits_NV if unused_V is None else logits_NV.masked_fill_(unused_V, NEVER)


class _LogProbs(torch.autograd.Function):
    """From logits [N, V], which are overwritten, to log-probs of ids_N and entropies as `token_log_probs` gives them.

    The numbers of log_softmax and gather, in two tensors of [N, V] where autograd has three: these are the
    peak of a step, and fresh memory of such a size costs time, too.
    """

    @staticmethod
    def forward(
        ctx: Any, logits_NV: Tensor, ids_N: Tensor, temperature: float, unused_V: Tensor | None, entropy: bool
    ) -> tuple[Tensor, Tensor]:
        log_probs_NV = scaled_logits(logits_NV, temperature, unused_V)
        torch.log_softmax(log_probs_NV, -1, out=log_probs_NV)
        log_probs_N = log_probs_NV.gather(-1, ids_N.unsqueeze(-1)).squeeze(-1)
        if entropy:
            entropy_N = -torch.linalg.vecdot(log_probs_NV.exp(), log_probs_NV)
        else:
            entropy_N = torch.full_like(log_probs_N, torch.nan)
        ctx.save_for_backward(log_probs_NV, ids_N, unused_V)
        ctx.temperature, ctx.dtype = temperature, logits_NV.dtype
        ctx.mark_non_differentiable(entropy_N)
        return log_probs_N, entropy_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor, _: Tensor) -> Any:
        log_probs_NV, ids_N, unused_V = ctx.saved_tensors
        grad_NV = torch.zeros_like(log_probs_NV).scatter_(-1, ids_N.unsqueeze(-1), grad_N.unsqueeze(-1))
        torch._log_softmax_backward_data(grad_NV, log_probs_NV, -1, grad_NV.dtype, out=grad_NV)
        if unused_V is not None:
            grad_NV.masked_fill_(unused_V, 0)
        return grad_NV.div_(ctx.temperature).to(ctx.dtype), None, None, None, None


def token_log_probs(
    hidden_BTD: Tensor,
    logits_of: Callable[[Tensor], Tensor],
    ids_BT: Tensor,
    temperature: float,
    vocabulary: int,
    unused_V: Tensor | None = None,
    *,
    entropy: bool = True,
    max_elements: int = LOGITS,
) -> tuple[Tensor, Tensor]:
    """Log-probs of tokens under softmax(logits / temperature), and the entropies of those distributions.

    The softmax is taken in fp32 at least. Where [N, V] exceeds max_elements, chunks of tokens are taken in turn, and
    again in the backward, so that no tensor of that size ever exists.

    Args:
        hidden_BTD: last-layer hidden states at the positions that predict ids_BT. Any leading axes that are
            those of ids_BT.
        logits_of: the model's path from hidden states [N, D] to logits [N, V].
        temperature: the sampler's.
        vocabulary: V.
        unused_V: true at ids that no token has: they have no part in any distribution.
        entropy: whether it is wanted; it costs another pass over [tokens, V].
        max_elements: the greatest tensor of [tokens, V].

    Returns:
        log_probs_BT and entropy_BT, in nats; the entropy without gradient, and NaN where it is not wanted.

    Raises:
        ValueError: temperature not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}, allowed: above 0")
    hidden_ND, ids_N = hidden_BTD.flatten(0, -2), ids_BT.flatten()

    def log_probs(hidden_ND: Tensor, ids_N: Tensor) -> tuple[Tensor, Tensor]:
        both: tuple[Tensor, Tensor] = _LogProbs.apply(logits_of(hidden_ND), ids_N, temperature, unused_V, entropy)
        return both

    chunk = max(1, max_elements // vocabulary)
    if len(ids_N) <= chunk:
        log_probs_N, entropy_N = log_probs(hidden_ND, ids_N)
    else:
        pieces = [
            checkpoint(log_probs, hidden, ids, use_reentrant=False, preserve_rng_state=False)
            for hidden, ids in zip(hidden_ND.split(chunk), ids_N.split(chunk), strict=True)
        ]
        log_probs_N, entropy_N = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return log_probs_N.view(ids_BT.shape), entropy_N.view(ids_BT.shape)
