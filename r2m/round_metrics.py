"""What a round measures of itself: means over all workers' trajectories, seconds by phase (docs/metrics.md).

Axes: N queries of this worker, K responses, R response tokens.
"""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from r2m.core.reward_loss import best_and_worst
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
    sampler_error_NKR = (old_NKR - t.sampler_log_probs_NKR).abs() * mask
    columns = torch.stack([
        scores_NK, vanilla_NK, advantages_NK, t.lengths_NK.float(), t.ended_NK.float(),
        ((old_NKR - ref_NKR) * mask).sum(-1),
        (entropy_NKR * mask).sum(-1),
        sampler_error_NKR.amax(-1),
        sampler_error_NKR.sum(-1),
    ], -1)  # fmt: skip
    gathered = workers.gather(columns)
    scores, vanilla, advantages, lengths, ended, kl, entropy, worst, error = gathered.unbind(-1)
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
        "rollout/log_prob_error": float(worst.max()),
        "rollout/log_prob_error_mean": float(error.sum() / tokens),
    }


def greedy_metrics(greedy: Trajectories, greedy_N: Tensor, workers: Workers) -> dict[str, float]:
    """What ReMax's greedy responses, one a query, score and cost."""
    columns = torch.stack([greedy_N, greedy.lengths_NK.squeeze(1).float()], -1)
    scores, lengths = workers.gather(columns).unbind(-1)
    return {"reward/greedy": float(scores.mean()), "rollout/greedy_tokens": float(lengths.mean())}


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


def gold_metrics(gold_NK: Tensor, scores_NK: Tensor, vanilla_NK: Tensor, workers: Workers) -> dict[str, float]:
    """How the scores of a round agree with the task's own reward."""
    gold, scores, vanilla = workers.gather(torch.stack([gold_NK, scores_NK, vanilla_NK], -1)).unbind(-1)
    return {
        "reward/gold": float(gold.mean()),
        "reward/gold_correlation": correlation(scores, gold),
        "reward/vanilla_gold_correlation": correlation(vanilla, gold),
        "reward/choice_accuracy": choice_accuracy(scores, gold),
        "reward/vanilla_choice_accuracy": choice_accuracy(vanilla, gold),
    }


def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's correlation over all elements; NaN where either is constant."""
    x, y = x.flatten().double() - x.double().mean(), y.flatten().double() - y.double().mean()
    return float((x @ y) / (x.norm() * y.norm()))


def choice_accuracy(scores_NK: Tensor, gold_NK: Tensor) -> float:
    """Share of groups whose best by score has more gold than their worst; pairs that tie in gold don't count."""
    best_N, worst_N = best_and_worst(scores_NK)
    margin_N = gold_NK.gather(1, best_N[:, None]) - gold_NK.gather(1, worst_N[:, None])
    return float((margin_N > 0).sum() / (margin_N != 0).sum())


def peak_mib(device: torch.device) -> float:
    """The most memory that this worker has held: the accelerator's, or the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
