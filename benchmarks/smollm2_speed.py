"""SmolLM2-135M on one thread: the sampler against `generate`, training against a plain Hugging Face step.

By turns in one process, CPU seconds. A contender's share of the rate at which the machine multiplies large matrices
counts the products with weights that it has to do: two operations for each weight and token, three times that in
training; of the output layer for the tokens that are scored.

    r2m models fetch smollm2-135m
    python benchmarks/smollm2_speed.py models/smollm2-135m
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from side_by_side import one_thread, print_table, ratios, spread  # isort: skip

import torch
from torch import nn
from transformers import PreTrainedModel

from r2m.core.policy_loss import TRL_RLOO, policy_loss
from r2m.core.trajectories import Trajectories
from r2m.policy.forward import policy_forward
from r2m.policy.loading import load_policy
from r2m.policy.sampler import sample, uniform_draws

PROMPT, RESPONSE = 32, 48  # tokens
SAMPLED = {
    "1": (1, 1, 0),
    "2": (2, 1, 0),
    "8": (8, 1, 0),
    "32": (32, 1, 0),
    "8 x 4": (8, 4, 0),
    "8 x 4, prompts of 20 to 32": (8, 4, 12),
}
TRAINED = {"8 x 1, 1 + 191 tokens": (8, 1, 1), "8 x 1, 96 + 96": (8, 1, 96), "2 x 4, 96 + 96": (2, 4, 96)}
LENGTH = 192
END = 49_000  # no end token: every response is whole


class Machine(NamedTuple):
    """What a share is taken of."""

    rate: float  # operations a second of a product of two matrices of 1,024 x 1,024
    body: int  # weights that every token is multiplied with
    head: int  # those of the output layer

    def share(self, seconds: float, tokens: int, scored: int, passes: int = 1) -> float:
        return 2 * passes * (self.body * tokens + self.head * scored) / seconds / self.rate


def machine(model: PreTrainedModel) -> Machine:
    a = torch.randn(1024, 1024)
    head = model.get_output_embeddings().weight.numel()
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    return Machine(max(2 * 1024**3 / seconds(lambda: a @ a) for _ in range(20)), linear - head, head)


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def by_turns(rounds: int, *contenders: Callable[[], object]) -> list[list[float]]:
    """CPU seconds of each contender's rounds; they are told as they come."""
    measured = []
    for _ in range(rounds):
        measured.append([seconds(work) for work in contenders])
        print(*(f"{s:.2f}" for s in measured[-1]), file=sys.stderr, flush=True)
    return [list(column) for column in zip(*measured, strict=True)]


def prompts(N: int, uneven: int) -> list[list[int]]:
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(100, 40_000, (N, PROMPT), generator=random).tolist()
    return [row[i * uneven // max(1, N - 1) :] for i, row in enumerate(ids)]


def sampling(model: PreTrainedModel, on: Machine, name: str, rounds: int) -> tuple[str, ...]:
    N, K, uneven = SAMPLED[name]
    ids = prompts(N, uneven)
    padded = torch.tensor([[0] * (PROMPT - len(row)) + row for row in ids]).repeat_interleave(K, 0)
    mask = torch.tensor([[0] * (PROMPT - len(row)) + [1] * len(row) for row in ids]).repeat_interleave(K, 0)

    def theirs() -> None:
        out = model.generate(
            padded, attention_mask=mask, do_sample=True, top_k=0, top_p=1.0, temperature=1.0, pad_token_id=0,
            eos_token_id=END, min_new_tokens=RESPONSE, max_new_tokens=RESPONSE,
        )  # fmt: skip
        assert out.shape[1] == PROMPT + RESPONSE

    def ours() -> None:
        draws = uniform_draws(0, 1, N, K, RESPONSE)
        t = sample(model, ids, draws, temperature=1.0, eos_ids=[END], pad_id=0)
        assert t.response_ids_NKR.shape == (N, K, RESPONSE)

    generated, sampled = by_turns(rounds, theirs, ours)
    tokens = sum(len(row) for row in ids) + N * K * (RESPONSE - 1)
    shares = [on.share(s, tokens, N * K * RESPONSE) for s in sampled]
    return name, spread(generated), spread(sampled), spread(ratios(generated, sampled)), spread(shares)


def training(model: PreTrainedModel, on: Machine, name: str, rounds: int) -> tuple[str, ...]:
    N, K, P = TRAINED[name]
    t = trajectories(N, K, P)
    B, R = N * K, LENGTH - P
    ids = torch.cat([t.prompt_ids_NP.repeat_interleave(K, 0), t.response_ids_NKR.flatten(0, 1)], 1)
    labels = ids.clone()
    labels[:, :P] = -100
    adamw = torch.optim.AdamW(model.parameters(), 1e-9, fused=True)

    def update() -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=True)

    def theirs() -> None:
        model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        update()

    def ours() -> None:
        log_probs_NKR = policy_forward(model, t, 1.0, entropy=False).log_probs_NKR
        policy_loss(
            log_probs_NKR, log_probs_NKR.detach(), log_probs_NKR.detach(), torch.ones(N, K, 1), t.response_mask_NKR,
            beta=0.05, total_sequences=B, total_tokens=B * R, **TRL_RLOO,
        ).loss.backward()  # fmt: skip
        update()

    plain, trained = by_turns(rounds, theirs, ours)
    shares = [on.share(s, N * P + B * (R - 1), B * R, 3) for s in trained]
    their_shares = [on.share(s, B * LENGTH, B * LENGTH, 3) for s in plain]
    return (
        name, spread(plain), spread(trained), spread(ratios(plain, trained)), spread(their_shares), spread(shares)
    )  # fmt: skip


def trajectories(N: int, K: int, P: int) -> Trajectories:
    random = torch.Generator().manual_seed(0)
    shapes = (N, P), (N, K, LENGTH - P)
    prompt_ids, response_ids = (torch.randint(100, 40_000, shape, generator=random) for shape in shapes)
    return Trajectories(
        prompt_ids, torch.ones_like(prompt_ids).bool(), response_ids, torch.ones_like(response_ids).bool(),
        torch.zeros(response_ids.shape), torch.ones(N, K).bool(),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--only", choices=("sampling", "training"))
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    one_thread()
    model = load_policy(asked.model)
    on = machine(model)
    print(f"CPU seconds, median (range) of {asked.rounds}; products of large matrices: {on.rate / 1e9:.0f} GFLOP/s")
    sampling(model, on, "1", 1)  # warm-up
    if asked.only != "training":
        header = f"sampling, {PROMPT} + {RESPONSE} tokens", "generate", "R2M", "ratio", "R2M's share of the rate"
        print_table(header, [sampling(model, on, name, asked.rounds) for name in SAMPLED])
    if asked.only != "sampling":
        shares = "its share of the rate", "R2M's"
        rows = [training(model, on, name, asked.rounds) for name in TRAINED]
        print_table(("training, 8 x 192", "plain step", "R2M", "ratio", *shares), rows)


if __name__ == "__main__":
    main()
