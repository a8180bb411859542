"""The policy's forward: log-probs of the responses and the hidden states that predict them.

Axes: N queries, K responses, P prompt tokens, R response tokens, D width.

A prompt runs through the model once and its keys and values are shared by its K responses, with gradients:
the cost falls from K (P + R) to P + K R tokens a query, and the result is that of K separate sequences.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from r2m.core.masking import positions, token_log_probs
from r2m.core.trajectories import Trajectories


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
    """Forward of a causal language model on `t` (Alg. 1 lines 6, 12 and 13)."""
    N, K, R = t.response_ids_NKR.shape
    P = t.prompt_ids_NP.shape[1]
    response_ids_BR = t.response_ids_NKR.reshape(N * K, R)
    cache = DynamicCache(config=model.config)
    prompt_hidden_NPD = model.base_model(
        input_ids=t.prompt_ids_NP,
        attention_mask=t.prompt_mask_NP.long(),
        position_ids=positions(t.prompt_mask_NP),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    predicting_BRD = prompt_hidden_NPD[:, -1:].repeat_interleave(K, 0)
    if R > 1:
        cache.batch_repeat_interleave(K)
        mask_BS = torch.cat(
            [t.prompt_mask_NP.repeat_interleave(K, 0), t.response_mask_NKR.reshape(N * K, R)[:, :-1]], 1
        )
        response_hidden = model.base_model(
            input_ids=response_ids_BR[:, :-1],
            attention_mask=mask_BS.long(),
            position_ids=positions(mask_BS)[:, P:],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        predicting_BRD = torch.cat([predicting_BRD, response_hidden], 1)
    head = model.get_output_embeddings()
    log_probs_BR, entropy_BR = token_log_probs(
        predicting_BRD, head.weight, response_ids_BR, temperature, head.bias, entropy=entropy
    )
    return PolicyOutput(
        log_probs_BR.view(N, K, R),
        entropy_BR.view(N, K, R),
        prompt_hidden_NPD,
        predicting_BRD[:, 1:].reshape(N, K, R - 1, predicting_BRD.shape[-1]),
    )


class HiddenStates:
    """The policy's last-layer hidden states h of a round's trajectories (Sec. 4.1), n (P + K R) D values.

    Filled in the annotation phase (Alg. 1 line 6), refreshed in the final epoch (line 13), read by the
    feedback head. They live on `device` in the policy's own precision.
    """

    def __init__(self, t: Trajectories, width: int, dtype: torch.dtype, device: torch.device | str) -> None:
        N, K, R = t.response_ids_NKR.shape
        P = t.prompt_ids_NP.shape[1]
        self._prompt_mask_NP = t.prompt_mask_NP
        # Row s predicts token s + 1: it counts where that token is real.
        self._response_mask_NKR = t.response_mask_NKR[..., 1:]
        self._prompt_NPD = torch.zeros(N, P, width, dtype=dtype, device=device)
        self._response_NKRD = torch.zeros(N, K, R - 1, width, dtype=dtype, device=device)

    def store(self, queries: slice, responses: slice, output: PolicyOutput) -> None:
        """Keep the hidden states of a forward on `t.block(queries, responses)`."""
        prompt, response = output.prompt_hidden_NPD.detach(), output.response_hidden_NKRD.detach()
        P = self._prompt_NPD.shape[1]
        self._prompt_NPD[queries, P - prompt.shape[1] :] = prompt.to(self._prompt_NPD)
        self._response_NKRD[queries, responses, : response.shape[2]] = response.to(self._response_NKRD)

    def rows(self, queries: slice, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """h of whole groups as (hidden_BTD, mask_BT), B = queries × K, T = P + R - 1, on `device`."""
        mask_NKR = self._response_mask_NKR[queries]
        K = mask_NKR.shape[1]
        prompt = self._prompt_NPD[queries, None].expand(-1, K, -1, -1)
        prompt_mask = self._prompt_mask_NP[queries, None].expand(-1, K, -1)
        hidden = torch.cat([prompt, self._response_NKRD[queries]], 2).flatten(0, 1)
        mask = torch.cat([prompt_mask, mask_NKR], 2).flatten(0, 1)
        return hidden.to(device), mask.to(device)
