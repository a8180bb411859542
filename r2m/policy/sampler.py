"""Sampling of responses from the policy itself: a prompt is prefilled once, finished rows leave the batch.

Axes: N queries, K responses, P prompt tokens, R response tokens, A rows still being written, S tokens so far,
D width, V vocabulary.

Every draw is a function of (seed, step, query, response, position), so what is sampled does not depend on the
batch size, on the rows that have finished, or on the number of workers, and needs no state to resume.
"""

import inspect
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from r2m.core.masking import pad, positions, scaled_logits
from r2m.core.seeds import generator
from r2m.core.trajectories import Trajectories
from r2m.models.families import OWN_POSITIONS, CacheUse
from r2m.policy.cache import growing_cache
from r2m.policy.output import base, cache_use, own_logits, unused_ids, vocabulary
from r2m.policy.packing import packed

HELD_OUT_STREAM = "held-out"  # the stream of evaluation draws: evaluating does not change what training samples


def uniform_draws(seed: int, step: int, N: int, K: int, R: int, stream: str = "rounds") -> Tensor:
    """The round's draws from [0, 1) for all queries of all workers: [N, K, R], fp32."""
    return torch.rand(N, K, R, generator=generator(stream, seed, step))


def eos_token_ids(model: PreTrainedModel, tokenizer_eos: int) -> tuple[int, ...]:
    """All tokens that end a response: the tokenizer's and those of the model's generation settings."""
    extra = getattr(model.generation_config, "eos_token_id", None)
    listed = extra if isinstance(extra, list) else [] if extra is None else [extra]
    return tuple(sorted({tokenizer_eos, *listed}))


@torch.no_grad()
def sample(
    model: PreTrainedModel, prompts: Sequence[list[int]], uniforms_NKR: Tensor, *, temperature: float,
    eos_ids: Sequence[int], pad_id: int, batch: int = 128, greedy: bool = False,
) -> Trajectories:  # fmt: skip
    """K responses of at most R tokens to each prompt (Alg. 1 line 5): temperature, no top-k, no top-p.

    `batch` is the number of trajectories written at once (whole groups; at least one group). With `greedy`, each
    group has one response more, its last: the likeliest token at every position (ReMax's baseline).
    """
    if greedy:  # draws of its own, which nothing reads
        uniforms_NKR = torch.cat([uniforms_NKR, torch.zeros_like(uniforms_NKR[:, :1])], 1)
    N, K, R = uniforms_NKR.shape
    device = model.device
    end_ids = torch.tensor(eos_ids, device=device)
    ids_NP, mask_NP = (x.to(device) for x in pad(list(prompts), pad_id, "left"))
    ids = torch.full((N, K, R), pad_id, device=device)
    log_probs = torch.zeros(N, K, R, device=device)
    any_lengths = cache_use(model) is CacheUse.SHARED
    with packed(model, min(N, max(1, batch // K)) * K):
        for part in _batches([len(prompt) for prompt in prompts], max(1, batch // K), any_lengths):
            width = int(mask_NP[part].sum(-1).max())
            ids[part], log_probs[part] = _write(
                model, ids_NP[part, -width:], mask_NP[part, -width:], uniforms_NKR[part].to(device), temperature,
                end_ids, pad_id, greedy,
            )  # fmt: skip
    is_eos = torch.isin(ids, end_ids)
    # The real tokens are those before and at the first end token; the rest was never written.
    mask = (is_eos.cumsum(-1) - is_eos.long()) == 0
    width = int(mask.sum(-1).max())
    ended_NK = (is_eos & mask).any(-1)
    ids, mask, log_probs = (x[..., :width].clone() for x in (ids, mask, log_probs))
    return Trajectories(ids_NP, mask_NP, ids, mask, log_probs, ended_NK)


def _batches(lengths_N: list[int], size: int, any_lengths: bool) -> Iterator[list[int]]:
    """Indices of prompts, in batches of at most `size`: in order, or each of prompts of one length."""
    order = range(len(lengths_N)) if any_lengths else sorted(range(len(lengths_N)), key=lengths_N.__getitem__)
    for _, alike in groupby(order, key=lambda i: any_lengths or lengths_N[i]):
        group = list(alike)
        yield from (group[i : i + size] for i in range(0, len(group), size))


def _write(
    model: PreTrainedModel, ids_NP: Tensor, mask_NP: Tensor, uniforms_NKR: Tensor,
    temperature: float, eos_ids: Tensor, pad_id: int, greedy: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Token ids and their log-probs, [N, K, R], of one batch of groups."""
    N, K, R = uniforms_NKR.shape
    B = N * K
    unused_V = unused_ids(model)
    last_used = vocabulary(model) - 1 if unused_V is None else int((~unused_V).nonzero().max())
    uniforms_BR = uniforms_NKR.reshape(B, R)
    out_ids = torch.full((B, R), pad_id, device=ids_NP.device)
    out_log_probs = torch.zeros(B, R, device=ids_NP.device)
    rows = torch.arange(B, device=ids_NP.device)  # row of the output that each active row writes
    decoder = Decoder(model, ids_NP, mask_NP, K)
    scratch_BV = None  # of every token: fresh memory would have to be zeroed by the system each time
    for t in range(R):
        logits_AV = scaled_logits(own_logits(model, decoder.hidden_AD), temperature, unused_V)
        if scratch_BV is None:
            scratch_BV = torch.empty(2, *logits_AV.shape, device=logits_AV.device, dtype=logits_AV.dtype)
        log_probs_AV = torch.log_softmax(logits_AV, -1, out=scratch_BV[0, : len(rows)])
        cumulative_AV = torch.exp(log_probs_AV, out=scratch_BV[1, : len(rows)]).cumsum_(-1)
        draw_A1 = uniforms_BR[rows, t, None] * cumulative_AV[:, -1:]
        token_A1 = torch.searchsorted(cumulative_AV, draw_A1, right=True).clamp_(max=last_used)
        if greedy:
            last_A1 = (rows % K == K - 1)[:, None]
            token_A1 = torch.where(last_A1, logits_AV.argmax(-1, keepdim=True), token_A1)
        token_A = token_A1.squeeze(1)
        out_ids[rows, t] = token_A
        out_log_probs[rows, t] = log_probs_AV.gather(1, token_A1).squeeze(1)
        alive = ~torch.isin(token_A, eos_ids)
        if t == R - 1 or not alive.any():
            break
        if not alive.all():
            keep = alive.nonzero().squeeze(1)
            decoder.keep(keep)
            rows, token_A = rows[keep], token_A[keep]
        decoder.append(token_A)
    return out_ids.view(N, K, R), out_log_probs.view(N, K, R)


class Decoder:
    """Rows of text that grow, K of each prompt at first; `hidden_AD` are those that predict each row's next token."""

    hidden_AD: Tensor

    def __init__(self, model: PreTrainedModel, ids_NP: Tensor, mask_NP: Tensor, K: int) -> None:
        """Prompts run once, padded on the left; without padding where they aren't SHARED."""
        self._cache_use, self._base = cache_use(model), base(model)
        assert self._cache_use is CacheUse.SHARED or bool(mask_NP.all()), "prompts of equal lengths"
        takes = inspect.signature(self._base.forward).parameters
        self._cache_name = "cache_params" if "cache_params" in takes else "past_key_values"
        self._positions = self._cache_use is CacheUse.SHARED or (
            "position_ids" in takes and model.config.model_type not in OWN_POSITIONS
        )
        self._cache = None if self._cache_use is CacheUse.RERUN else growing_cache(model.config)
        self._ids_AS, self._mask_AS = ids_NP, mask_NP.long()
        self._position_A = mask_NP.sum(-1)
        self._run(ids_NP, positions(mask_NP))
        self.keep(torch.arange(len(ids_NP), device=ids_NP.device).repeat_interleave(K))

    def keep(self, rows_A: Any) -> None:
        """Go on with these rows; those that have ended leave."""
        if self._cache is not None:
            self._cache.reorder_cache(rows_A)
        self._ids_AS, self._mask_AS = self._ids_AS[rows_A], self._mask_AS[rows_A]
        self._position_A, self.hidden_AD = self._position_A[rows_A], self.hidden_AD[rows_A]

    def append(self, token_A: Tensor) -> None:
        """Let each row go on with its token."""
        self._ids_AS = torch.cat([self._ids_AS, token_A[:, None]], 1)
        self._mask_AS = torch.cat([self._mask_AS, torch.ones_like(token_A)[:, None]], 1)
        self._run(token_A[:, None], self._position_A[:, None])
        self._position_A = self._position_A + 1

    def _run(self, ids: Tensor, position_ids: Tensor) -> None:
        inputs: dict[str, Any] = {"input_ids": ids, "use_cache": True, self._cache_name: self._cache}
        if self._cache_use is CacheUse.SHARED:
            inputs["attention_mask"] = self._mask_AS
        if self._positions:
            inputs["position_ids"] = position_ids
        if self._cache_use is CacheUse.RERUN:
            inputs = {"input_ids": self._ids_AS, "use_cache": False}
        self.hidden_AD = self._base(**inputs).last_hidden_state[:, -1]
