"""The policy's forward: log-probs of the responses and the hidden states that predict them.

Axes: N queries, K responses, B = N K, P prompt tokens, R response tokens, S = P + R - 1 inputs, D width.

Where a family allows it (families.CacheUse), a prompt runs through the model once and its keys and values are shared
by its K responses, with gradients: the cost falls from K (P + R) to P + K R tokens a query, and the result is that of
K separate sequences.
"""

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from r2m.core.masking import positions, token_log_probs
from r2m.core.trajectories import Trajectories
from r2m.models.families import CacheUse
from r2m.policy.output import base, cache_use, own_logits, unused_ids, vocabulary
from r2m.policy.recompute import FEWER_LOGITS, PrefixCache, has_prefix_cache, recomputed, recomputes


class PolicyOutput(NamedTuple):
    """What one forward gives. The hidden states are those after the last norm, of the inputs that predict
    tokens: S - 1 rows of a sequence of S tokens, the prompt's kept once for its K responses."""

    log_probs_NKR: Tensor  # fp32, of logits / temperature; meaningless at padding
    entropy_NKR: Tensor  # nats, detached; NaN where it was not asked for
    prompt_hidden_NPD: Tensor
    response_hidden_NKRD: Tensor  # of all response tokens but the last column: R - 1 rows


def policy_forward(
    model: PreTrainedModel, t: Trajectories, temperature: float, *, entropy: bool = True
) -> PolicyOutput:
    """Forward of a causal language model on `t` (Alg. 1 lines 6, 12 and 13).

    Where `recompute_activations` says so, these are not kept for the backward but computed again in it.
    """
    N, K, R = t.response_ids_NKR.shape
    recompute = recomputes(model) and torch.is_grad_enabled()
    shared = cache_use(model) is CacheUse.SHARED and (not recompute or has_prefix_cache(model.config))
    with recomputed(base(model)) if recompute else nullcontext():
        prompt_hidden_NPD, predicting_BRD = (_shared if shared else _apart)(model, t)
    limit = {"max_elements": FEWER_LOGITS} if recompute else {}
    log_probs_BR, entropy_BR = token_log_probs(
        predicting_BRD, lambda hidden_ND: own_logits(model, hidden_ND), t.response_ids_NKR.reshape(N * K, R),
        temperature, vocabulary(model), unused_ids(model), entropy=entropy, **limit,
    )  # fmt: skip
    response_hidden_NKRD = predicting_BRD[:, 1:].reshape(N, K, R - 1, predicting_BRD.shape[-1])
    return PolicyOutput(log_probs_BR.view(N, K, R), entropy_BR.view(N, K, R), prompt_hidden_NPD, response_hidden_NKRD)


def _shared(model: PreTrainedModel, t: Trajectories) -> tuple[Tensor, Tensor]:
    """Hidden states of the prompts [N, P, D], and those that predict the responses' tokens [B, R, D]."""
    N, K, R = t.response_ids_NKR.shape
    P = t.prompt_ids_NP.shape[1]
    cache = PrefixCache(model.config) if has_prefix_cache(model.config) else DynamicCache(config=model.config)

    def hidden(ids: Tensor, mask: Tensor, cache: DynamicCache, first: int) -> Tensor:
        """Of the columns of `mask` from `first` on, whose ids these are."""
        where: dict[str, Tensor] = {"attention_mask": mask.long(), "position_ids": positions(mask)[:, first:]}
        return base(model)(input_ids=ids, past_key_values=cache, use_cache=True, **where).last_hidden_state

    prompt_hidden_NPD = hidden(t.prompt_ids_NP, t.prompt_mask_NP, cache, 0)
    predicting_BRD = prompt_hidden_NPD[:, -1:].repeat_interleave(K, 0)
    if R > 1:
        if isinstance(cache, PrefixCache):
            cache = cache.after(K)
        else:
            cache.batch_repeat_interleave(K)
        ids_BR, mask_BR = (x.reshape(N * K, R)[:, :-1] for x in (t.response_ids_NKR, t.response_mask_NKR))
        mask_BS = torch.cat([t.prompt_mask_NP.repeat_interleave(K, 0), mask_BR], 1)
        predicting_BRD = torch.cat([predicting_BRD, hidden(ids_BR, mask_BS, cache, P)], 1)
    return prompt_hidden_NPD, predicting_BRD


def _apart(model: PreTrainedModel, t: Trajectories) -> tuple[Tensor, Tensor]:
    """As `_shared`, from B whole sequences padded on the right: a causal model needs no mask to ignore that, nor
    positions that differ from its own."""
    N, K, R = t.response_ids_NKR.shape
    P = t.prompt_ids_NP.shape[1]
    device = t.prompt_ids_NP.device
    ids_BS = torch.cat([t.prompt_ids_NP.repeat_interleave(K, 0), t.response_ids_NKR.reshape(N * K, R)[:, :-1]], 1)
    padding_N = P - t.prompt_mask_NP.sum(-1)  # the columns before a prompt
    last, shift_B1 = P + R - 2, padding_N.repeat_interleave(K)[:, None]
    ids_BS = ids_BS.gather(1, (torch.arange(last + 1, device=device) + shift_B1).clamp(max=last))
    hidden_BSD = base(model)(input_ids=ids_BS, use_cache=False).last_hidden_state
    at_NP = (torch.arange(P, device=device) - padding_N[:, None]).clamp(min=0)
    at_BR = torch.arange(P - 1, P - 1 + R, device=device) - shift_B1
    rows_B = torch.arange(N * K, device=device)
    return hidden_BSD[rows_B[::K, None], at_NP], hidden_BSD[rows_B[:, None], at_BR]


def hidden_width(model: PreTrainedModel) -> int:
    """D of `policy_forward`'s hidden states, as the model gives them: configurations name it in many ways."""
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    with torch.no_grad():
        return int(base(model)(input_ids=token, use_cache=False).last_hidden_state.shape[-1])


class HiddenStates:
    """The policy's last-layer hidden states h of a round's trajectories (Sec. 4.1), n (P + K R) D values.

    Filled in the annotation phase (Alg. 1 line 6), refreshed in the final epoch (line 13), read by the
    feedback head. They live on `device` in `dtype`, the policy's own; their width is that of what is stored.
    """

    def __init__(self, t: Trajectories, dtype: torch.dtype, device: torch.device | str) -> None:
        self._prompt_mask_NP = t.prompt_mask_NP
        self._response_mask_NKR = t.response_mask_NKR[..., 1:]  # row s predicts token s + 1, which has to be real
        self._dtype, self._device = dtype, device

    def store(self, queries: slice, responses: slice, output: PolicyOutput) -> None:
        """Keep the hidden states of a forward on `t.block(queries, responses)`."""
        prompt, response = output.prompt_hidden_NPD.detach(), output.response_hidden_NKRD.detach()
        if not hasattr(self, "_prompt_NPD"):
            where: dict[str, Any] = {"dtype": self._dtype, "device": self._device}
            self._prompt_NPD = torch.zeros(*self._prompt_mask_NP.shape, prompt.shape[-1], **where)
            self._response_NKRD = torch.zeros(*self._response_mask_NKR.shape, prompt.shape[-1], **where)
        P = self._prompt_NPD.shape[1]
        self._prompt_NPD[queries, P - prompt.shape[1] :] = prompt.to(self._prompt_NPD)
        self._response_NKRD[queries, responses, : response.shape[2]] = response.to(self._response_NKRD)

    @property
    def mib(self) -> float:
        """What they take on their device; once stored."""
        return (self._prompt_NPD.nbytes + self._response_NKRD.nbytes) / 2**20

    def rows(self, queries: slice, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """h of whole groups as (hidden_BTD, mask_BT), B = queries × K, T = P + R - 1, on `device`."""
        mask_NKR = self._response_mask_NKR[queries]
        K = mask_NKR.shape[1]
        prompt = self._prompt_NPD[queries, None].expand(-1, K, -1, -1)
        prompt_mask = self._prompt_mask_NP[queries, None].expand(-1, K, -1)
        hidden = torch.cat([prompt, self._response_NKRD[queries]], 2).flatten(0, 1)
        mask = torch.cat([prompt_mask, mask_NKR], 2).flatten(0, 1)
        return hidden.to(device), mask.to(device)
