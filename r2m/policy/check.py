"""Whether a model, run as training and sampling run it, gives what a plain forward of one sequence gives.

Axes: N queries, K responses, P prompt tokens, R response tokens, S = P + R - 1 inputs, D width, V vocabulary.
"""

import warnings
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from r2m.core.masking import pad, scaled_logits
from r2m.core.trajectories import Trajectories
from r2m.errors import UserError, said
from r2m.models.families import CacheUse, cache_use_of
from r2m.policy.forward import policy_forward
from r2m.policy.output import base, cache_use, own_logits, unused_ids, vocabulary
from r2m.policy.sampler import Decoder

# Tokens: unequal, so that both have padding and one response ends first.
PROMPT_LENGTHS, RESPONSE_LENGTHS = (12, 5), (6, 3)
# Greatest relative error over all tokens. Rounding gives up to 1e-5 in fp32, and up to 4e-2 in bf16 in random models
# of 24 to 32 layers; a wrong position, mask or scale gives 0.15 and more.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-1}


class Outputs(NamedTuple):
    """Log-probs of the response tokens, those that a sampler sees, and hidden states, each of all tokens in turn."""

    log_probs: Tensor
    sampled: Tensor
    hidden: Tensor


@torch.no_grad()
def settle_cache_use(model: PreTrainedModel, named: str) -> None:
    """Find the fastest use of caches, its family's or a slower one, that is right on random tokens, and keep it; a
    warning says so where it is not its family's.

    Raises UserError, one line that begins with `named`, where none is.
    """
    try:
        first = cache_use_of(model.config)
        t = _random_trajectories(model)
        expected = _plain(model, t)
    except Exception as error:
        raise UserError(f"{named}: it cannot be run on plain text: {said(error)[:200]}") from None
    trouble = ""
    for found in list(CacheUse)[list(CacheUse).index(first) :]:
        vars(model)["cache_use"] = found
        before = trouble
        try:
            trouble = _difference(_ours(model, t), expected, TOLERANCE.get(model.dtype, 1e-3))
        except Exception as error:  # whatever a model raises that has another cache or other inputs
            trouble = said(error)[:200]
        if not trouble:
            if before:
                warnings.warn(f"{named}: {found.value}, slower than planned; else {before}", stacklevel=2)
            return
    raise UserError(f"{named}: run in batches it does not give what it gives for one sequence: {trouble}")


def _random_trajectories(model: PreTrainedModel) -> Trajectories:
    """Random tokens: never padding's, whose embedding may be zero and hide what is done to it."""
    unused_V, count = unused_ids(model), sum(PROMPT_LENGTHS) + len(PROMPT_LENGTHS) * sum(RESPONSE_LENGTHS)
    random = torch.Generator().manual_seed(0)
    drawn = torch.randint(vocabulary(model), (64 * count,), generator=random).to(model.device)
    fit = model.get_input_embeddings()(drawn).abs().sum(-1) > 0
    if unused_V is not None:
        fit &= ~unused_V[drawn]
    padding = getattr(model.config.get_text_config(decoder=True), "pad_token_id", None)
    ids = iter(drawn[fit & (drawn != (-1 if padding is None else padding))].tolist())
    prompt_ids, prompt_mask = pad([list(islice(ids, length)) for length in PROMPT_LENGTHS], 0, "left")
    responses = [list(islice(ids, length)) for _ in PROMPT_LENGTHS for length in RESPONSE_LENGTHS]
    response_ids, response_mask = pad(responses, 0, "right")
    N, K = len(PROMPT_LENGTHS), len(RESPONSE_LENGTHS)
    return Trajectories(
        prompt_ids, prompt_mask, response_ids.view(N, K, -1), response_mask.view(N, K, -1),
        torch.zeros(N, K, max(RESPONSE_LENGTHS)), torch.ones(N, K, dtype=torch.bool),
    ).to(model.device)  # fmt: skip


def _plain(model: PreTrainedModel, t: Trajectories) -> Outputs:
    """One sequence at a time, whole, without padding, cache and positions, through the model's own forward."""
    log_probs, hidden = [], []
    for n, P in enumerate(PROMPT_LENGTHS):
        for k, R in enumerate(RESPONSE_LENGTHS):
            response_R = t.response_ids_NKR[n, k, :R]
            ids_1S = torch.cat([t.prompt_ids_NP[n, -P:], response_R[:-1]])[None]
            logits_RV = model(input_ids=ids_1S, use_cache=False).logits[0, P - 1 :]
            log_probs_RV = scaled_logits(logits_RV, 1.0, unused_ids(model)).log_softmax(-1)
            log_probs.append(log_probs_RV.gather(1, response_R[:, None]).squeeze(1))
            hidden.append(base(model)(input_ids=ids_1S, use_cache=False).last_hidden_state[0])
    return Outputs(torch.cat(log_probs), torch.cat(log_probs), torch.cat(hidden))


def _ours(model: PreTrainedModel, t: Trajectories) -> Outputs:
    """The same by the trainer's forward and the sampler's steps."""
    out = policy_forward(model, t, 1.0, entropy=False)
    hidden = [
        torch.cat([out.prompt_hidden_NPD[n, -P:], out.response_hidden_NKRD[n, k, : R - 1]])
        for n, P in enumerate(PROMPT_LENGTHS)
        for k, R in enumerate(RESPONSE_LENGTHS)
    ]
    alone = [slice(n, n + 1) for n in range(len(PROMPT_LENGTHS))]
    together = [slice(None)] if cache_use(model) is CacheUse.SHARED else alone
    sampled = [_step_by_step(model, t.block(part)) for part in together]
    mask_NKR = t.response_mask_NKR
    return Outputs(out.log_probs_NKR[mask_NKR], torch.cat(sampled)[mask_NKR], torch.cat(hidden))


def _step_by_step(model: PreTrainedModel, t: Trajectories) -> Tensor:
    """Log-probs NKR of tokens that are given one by one; a row leaves when its response has ended."""
    ids_BR, lengths_B = t.response_ids_NKR.flatten(0, 1), t.lengths_NK.flatten()
    log_probs_BR = torch.zeros(ids_BR.shape, device=ids_BR.device)
    decoder = Decoder(model, t.prompt_ids_NP, t.prompt_mask_NP, t.ended_NK.shape[1])
    rows = torch.arange(len(ids_BR), device=ids_BR.device)
    for r in range(ids_BR.shape[1]):
        logits_AV = scaled_logits(own_logits(model, decoder.hidden_AD), 1.0, unused_ids(model))
        log_probs_BR[rows, r] = logits_AV.log_softmax(-1).gather(1, ids_BR[rows, r, None]).squeeze(1)
        alive = (lengths_B[rows] > r + 1).nonzero().squeeze(1)
        if len(alive) == 0:
            break
        if len(alive) < len(rows):
            decoder.keep(alive)
            rows = rows[alive]
        decoder.append(ids_BR[rows, r])
    return log_probs_BR.view(t.response_ids_NKR.shape)


def _difference(ours: Outputs, plain: Outputs, tolerance: float) -> str:
    """What differs by more than the tolerance, in words; empty where nothing does."""
    named = zip(("log-probs", "the sampler's log-probs", "hidden states"), ours, plain, strict=True)
    errors = {name: _relative(a.float(), b.float()) for name, a, b in named}
    parts = [f"{name} differ by {error:.2g}" for name, error in errors.items() if not error <= tolerance]
    return f"{', '.join(parts)} (relative; allowed: {tolerance:g})" if parts else ""


def _relative(a: Tensor, b: Tensor) -> float:
    """‖a - b‖ / ‖b‖, of log-probs (one axis) to their spread: what they have in common says nothing."""
    scale = b - b.mean() if b.dim() == 1 else b
    return float((a - b).norm() / scale.norm().clamp(min=1e-3))
