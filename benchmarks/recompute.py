"""Activations recomputed in the backward, for K responses that share a prompt: three ways and none, time and memory.

A forward and a backward of SmolLM2-135M on one thread, each way in a process of its own; in another the allocator
gives freed memory back at once, so that its peak is that of the tensors (that costs time).

    r2m models fetch smollm2-135m
    python benchmarks/recompute.py models/smollm2-135m
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

from side_by_side import one_thread, print_table, spread  # isort: skip

import torch
from torch import Tensor
from transformers import PreTrainedModel

from r2m.core.masking import token_log_probs
from r2m.core.trajectories import Trajectories
from r2m.limits import LOGITS_RECOMPUTED
from r2m.models.families import CacheUse
from r2m.policy.forward import policy_forward
from r2m.policy.loading import load_policy
from r2m.policy.output import base, own_logits, vocabulary
from r2m.policy.recompute import recompute_activations, recomputed

GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # glibc's
SIZES = {"2 x 4, 96 + 96 tokens": (2, 4, 96, 96), "1 x 4, 256 + 256 tokens": (1, 4, 256, 256)}


def plain(model: PreTrainedModel, t: Trajectories) -> Tensor:
    return policy_forward(model, t, 1.0, entropy=False).log_probs_NKR


def layers(model: PreTrainedModel, t: Trajectories) -> Tensor:
    """As r2m does."""
    recompute_activations(model, "recompute")
    return plain(model, t)


def apart(model: PreTrainedModel, t: Trajectories) -> Tensor:
    """K sequences, each with its prompt."""
    vars(model)["cache_use"] = CacheUse.CACHED
    return layers(model, t)


def packed(model: PreTrainedModel, t: Trajectories) -> Tensor:
    """A row of a prompt and its K responses under a block mask. No prompt here is padded."""
    N, K, R = t.response_ids_NKR.shape
    P = t.prompt_ids_NP.shape[1]
    ids_NS = torch.cat([t.prompt_ids_NP, t.response_ids_NKR[..., :-1].flatten(1)], 1)
    block_S = torch.cat([torch.zeros(P), 1 + torch.arange(K).repeat_interleave(R - 1)])
    sees_SS = (block_S == 0) | (block_S == block_S[:, None])
    sees_11SS = (sees_SS & torch.ones_like(sees_SS).tril())[None, None]
    position_1S = torch.cat([torch.arange(P), P + torch.arange(R - 1).repeat(K)])[None]
    with recomputed(base(model)):
        hidden_NSD = base(model)(
            input_ids=ids_NS, position_ids=position_1S.expand(N, -1), use_cache=False,
            attention_mask=sees_11SS.expand(N, -1, -1, -1),
        ).last_hidden_state  # fmt: skip
    first = hidden_NSD[:, None, P - 1 : P].expand(-1, K, -1, -1)
    predicting_NKRD = torch.cat([first, hidden_NSD[:, P:].unflatten(1, (K, R - 1))], 2)
    return token_log_probs(
        predicting_NKRD, lambda hidden_ND: own_logits(model, hidden_ND), t.response_ids_NKR, 1.0, vocabulary(model),
        entropy=False, max_elements=LOGITS_RECOMPUTED,
    )[0]  # fmt: skip


WAYS: dict[str, Callable[[PreTrainedModel, Trajectories], Tensor]] = {
    "nothing recomputed": plain,
    "layers, beside shared keys and values": layers,
    "layers, one packed row a prompt": packed,
    "layers, K sequences apart": apart,
}


def measure(path: str, size: str, way: str) -> dict[str, float]:
    one_thread()
    model = load_policy(path)
    N, K, P, R = SIZES[size]
    random = torch.Generator().manual_seed(0)
    prompt_ids, response_ids = (torch.randint(100, 40_000, s, generator=random) for s in ((N, P), (N, K, R)))
    t = Trajectories(
        prompt_ids, torch.ones_like(prompt_ids).bool(), response_ids, torch.ones_like(response_ids).bool(),
        torch.zeros(response_ids.shape), torch.ones(N, K).bool(),
    )  # fmt: skip
    loaded, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.process_time()
    log_probs_NKR = WAYS[way](model, t)
    log_probs_NKR.mean().backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"s": time.process_time() - started, "MiB": peak - loaded, "norm": float(norm)}


def measured(path: str, size: str, way: str, **environment: str) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, path, "--one", size, way]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("SIZE", "WAY"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.model, *asked.one)))
        return
    for size in SIZES:
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(asked.rounds):
            for way in WAYS:
                one = measured(asked.model, size, way)
                one["tensors"] = measured(asked.model, size, way, **GIVING_BACK)["MiB"]
                found[way].append(one)
        rows = [
            (
                way, spread([one["s"] for one in each]), spread([one["MiB"] for one in each], 0),
                spread([one["tensors"] for one in each], 0), f"{each[0]['norm']:.6g}",
            )
            for way, each in found.items()
        ]  # fmt: skip
        columns = "CPU s", "peak over the loaded model, MiB", "of tensors", "norm of the gradient"
        print_table((size, *columns), rows)


if __name__ == "__main__":
    main()
