"""What a round measures of itself: means over all workers' trajectories, seconds by phase (docs/metrics.md).

Axes: N queries of this worker, K responses, R response tokens.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from r2m.core.trajectories import Trajectories
from r2m.workers import Workers


def round_metrics(
    t: Trajectories,
    scores_NK: Tensor,
    vanilla_NK: Tensor,
    advantages_NK: Tensor,
    old_NKR: Tensor,
    ref_NKR: Tensor,
    entropy_NKR: Tensor,
    workers: Workers,
) -> dict[str, float]:
    """Means over the whole round, of all workers. Defined in docs/metrics.md."""
    mask = t.response_mask_NKR
    token_sums = torch.stack([
        scores_NK, vanilla_NK, advantages_NK, t.lengths_NK.float(), t.ended_NK.float(),
        ((old_NKR - ref_NKR) * mask).sum(-1),
        (entropy_NKR * mask).sum(-1),
        ((old_NKR - t.sampler_log_probs_NKR).abs() * mask).amax(-1),
    ], -1)  # fmt: skip
    scores, vanilla, advantages, lengths, ended, kl, entropy, sampler_error = workers.gather(token_sums).unbind(
        -1
    )
    tokens = lengths.sum()
    return {
        "reward/proxy": float(scores.mean()),
        "reward/proxy_std": float(scores.std(-1, correction=0).mean()),
        "reward/vanilla": float(vanilla.mean()),
        "train/advantage_std": float(advantages.std(correction=0)),
        "train/entropy": float(entropy.sum() / tokens),
        "kl/sequence": float(kl.mean()),
        "kl/token": float(kl.sum() / tokens),
        "rollout/response_tokens": float(lengths.mean()),
        "rollout/no_eos_share": float(1 - ended.mean()),
        "rollout/log_prob_error": float(sampler_error.max()),
    }


class Clock:
    """Seconds and tokens a second by phase."""

    def __init__(self, device: torch.device) -> None:
        self._wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        self._seconds: dict[str, float] = {}

    def start_round(self) -> None:
        self._seconds = {}
        self._started = time.perf_counter()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._wait()
        self._seconds[phase] = time.perf_counter() - started

    def metrics(self, sampled_tokens: float, trained_tokens: float) -> dict[str, float]:
        return {f"time/{phase}_s": seconds for phase, seconds in self._seconds.items()} | {
            "time/round_s": time.perf_counter() - self._started,
            "speed/sampled_tokens_per_s": sampled_tokens / self._seconds["sample"],
            "speed/trained_tokens_per_s": trained_tokens / self._seconds["policy"],
        }
