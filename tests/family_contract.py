"""What a policy has to be: its log-probs, hidden states and gradients are those of a plain forward.

The oracle is the model's own `logits`: one sequence a row, no padding, no cache.

Axes: N queries, K responses, P prompt tokens, R response tokens, S = P + R, D width, V vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from r2m.core.masking import pad
from r2m.core.trajectories import Trajectories
from r2m.models.saving import save_model
from r2m.policy.forward import policy_forward
from r2m.policy.sampler import sample, uniform_draws
from tests.families import EOS, PAD, TOKENS, tiny, tokenizer

TEMPERATURE = 0.7
PROMPTS = (11, 4)  # tokens: longer than the zoo's sliding windows, and padded on the left
RESPONSES = ((6, 1, 4), (3, 6, 5))
TOLERANCE = 1e-3  # nats; relative for hidden states and gradients


class Gaps(NamedTuple):
    """The greatest differences from the plain forward."""

    log_probs: float  # nats
    hidden: float  # of norms, relative
    gradient: float  # of the norm over all parameters, relative
    sampled: float  # nats: the sampler's log-probs of its own tokens against the plain forward's

    @property
    def right(self) -> bool:
        return all(gap < TOLERANCE for gap in self)  # a NaN is not


def saved(family: str, folder: Path) -> str:
    """The family's tiny model as a Hugging Face folder."""
    save_model(folder, tiny(family), tokenizer())
    return str(folder)


def gaps(model: PreTrainedModel, folder: str) -> Gaps:
    """Of the model that was loaded from `folder`."""
    tokens = len(AutoTokenizer.from_pretrained(folder))  # some families' own tokenizer classes add one
    random = torch.Generator().manual_seed(1)

    def ids(length: int) -> list[int]:
        return torch.randint(TOKENS, (length,), generator=random).tolist()  # PAD and EOS among them

    prompts = [ids(length) for length in PROMPTS]
    responses = [[ids(length) for length in group] for group in RESPONSES]
    t = trajectories(prompts, responses)
    weights_NKR = torch.randn(t.response_ids_NKR.shape, generator=random) * t.response_mask_NKR

    output = policy_forward(model, t, TEMPERATURE)
    (output.log_probs_NKR * weights_NKR).sum().backward()
    gradient = gradient_of(model)

    log_probs = hidden = 0.0
    for n, prompt in enumerate(prompts):
        for k, response in enumerate(responses[n]):
            P, R = len(prompt), len(response)
            expected_R, states_SD = plain(model, prompt, response, tokens)
            (expected_R * weights_NKR[n, k, :R]).sum().backward()
            log_probs = max(log_probs, gap(output.log_probs_NKR[n, k, :R], expected_R))
            own_SD = torch.cat([output.prompt_hidden_NPD[n, -P:], output.response_hidden_NKRD[n, k, : R - 1]])
            hidden = max(hidden, relative(own_SD, states_SD[:-1]))
    return Gaps(log_probs, hidden, relative(gradient, gradient_of(model)), sampled_gap(model, prompts, tokens))


def sampled_gap(model: PreTrainedModel, prompts: list[list[int]], tokens: int) -> float:
    N, K, R = len(prompts), 3, 6
    t = sample(model, prompts, uniform_draws(0, 0, N, K, R), temperature=TEMPERATURE, eos_ids=(EOS,), pad_id=PAD)
    worst = 0.0
    for n, prompt in enumerate(prompts):
        for k in range(K):
            length = int(t.lengths_NK[n, k])
            expected_R, _ = plain(model, prompt, t.response_ids_NKR[n, k, :length].tolist(), tokens)
            worst = max(worst, gap(t.sampler_log_probs_NKR[n, k, :length], expected_R))
    return worst


def plain(model: PreTrainedModel, prompt: list[int], response: list[int], tokens: int) -> tuple[Tensor, Tensor]:
    """log_probs_R of the response, and the hidden states_SD of the whole sequence."""
    ids_1S = torch.tensor([prompt + response])
    logits_RV = model(input_ids=ids_1S, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    log_probs_RV = (logits_RV[:, :tokens] / TEMPERATURE).log_softmax(-1)  # ids that no token has: left out
    base = model.model if model.base_model is model else model.base_model  # Llama 4's prefix names no module of it
    with torch.no_grad():
        states_SD = base(input_ids=ids_1S, use_cache=False).last_hidden_state[0]
    return log_probs_RV.gather(1, torch.tensor(response)[:, None]).squeeze(1), states_SD


def states(model: PreTrainedModel, ids_BS: Tensor) -> Tensor:
    """Hidden states BSD after the last norm."""
    base = model.model if model.base_model is model else model.base_model  # Llama 4's prefix names no module of it
    return base(input_ids=ids_BS, use_cache=False).last_hidden_state


def trajectories(prompts: list[list[int]], responses: list[list[list[int]]]) -> Trajectories:
    prompt_ids_NP, prompt_mask_NP = pad(prompts, PAD, "left")
    N, K = len(responses), len(responses[0])
    ids_BR, mask_BR = pad([response for group in responses for response in group], PAD, "right")
    return Trajectories(
        prompt_ids_NP=prompt_ids_NP,
        prompt_mask_NP=prompt_mask_NP,
        response_ids_NKR=ids_BR.view(N, K, -1),
        response_mask_NKR=mask_BR.view(N, K, -1),
        sampler_log_probs_NKR=torch.zeros(N, K, ids_BR.shape[1]),
        ended_NK=torch.zeros(N, K, dtype=torch.bool),
    )


def gradient_of(model: PreTrainedModel) -> Tensor:
    """All parameters' gradients as one vector, which are taken away; zeros where there is none."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    model.zero_grad(set_to_none=True)
    return torch.cat([part.flatten() for part in parts])


def gap(a: Tensor, b: Tensor) -> float:
    return float((a.detach() - b.detach()).abs().max())


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.detach() - b.detach()).norm() / b.detach().norm())
