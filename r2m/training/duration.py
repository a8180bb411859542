"""A guess at a run's time, from its operations: to tell an hour from a week, no more.

Letters as in r2m.training.memory.
"""

from dataclasses import dataclass

from r2m.config import Config
from r2m.models.families import CacheUse
from r2m.training.memory import BYTES, reference_responses, scoring_models, trained_parameters
from r2m.training.shape import Shape


@dataclass(frozen=True)
class Chip:
    """Of one worker's device: peak rates, and the share of them that a run reaches."""

    name: str
    flops: dict[str, float]  # operations a second, by dtype
    bytes_per_s: float  # of its memory
    utilisation: float
    step_s: float  # of a token's forward, however little there is to do: launches, Python


H100 = Chip("an H100", {"bfloat16": 989e12, "float32": 67e12}, 3.35e12, 0.35, 0.02)
# Measured on one thread of ours; docs/decisions.md.
CPU = Chip("a CPU thread", {"bfloat16": 1e9, "float32": 85e9}, 18.5e9, 0.5, 0.005)
ADAMW_BYTES = 28  # of a value in a step: weight, gradient and two states are read, all but the gradient written


@dataclass(frozen=True)
class Guess:
    """Seconds of a round."""

    sampling: float
    forwards: float  # of the annotation: policy, reference, reward model
    training: float
    machine: Chip

    @property
    def round(self) -> float:
        return self.sampling + self.forwards + self.training

    def __str__(self) -> str:
        sampling, forwards, training = map(time_text, (self.sampling, self.forwards, self.training))
        parts = f"sampling {sampling}, scoring {forwards}, training {training}"
        m = self.machine
        return f"{time_text(self.round)} a round: {parts}; at {m.utilisation:.0%} of {m.name}'s peak"


def guess(config: Config, policy: Shape, reward: Shape, P: int, device: str) -> Guess:
    """With every prompt and response as long as it may be. A forward takes 2 operations for each weight and token, a
    backward twice that; a token is sampled in the time of reading the weights, and the keys and values before it."""
    a, p, m = config.algorithm, config.policy, H100 if device == "gpu" else CPU
    n, K, R = a.queries // config.run.workers, a.responses, a.max_response_tokens
    B = n * K
    apart = policy.cache_use is not CacheUse.SHARED
    run_tokens = B * (P + R - 1) if apart else n * (P + K * (R - 1))
    rate = m.flops[p.dtype] * m.utilisation
    forward = 2 * policy.parameters * run_tokens / rate
    M = reference_responses(config)  # to each prompt, sampled and scored too, and with feedback read by the policy
    scored = (
        2
        * scoring_models(config)
        * reward.parameters
        * (B + n * M)
        * (P + R)
        / (m.flops[config.reward.dtype] * m.utilisation)
    )
    # AdamW's arithmetic is nothing beside that; of adapters' backward, the weights' own gradients are left out.
    passes = 1 + (1 if p.lora else 2) + p.recompute
    if config.reward.anchor:  # a forward of n original pairs, after the update
        pairs = n * (2 * (P + R - 1) if apart else P + 2 * (R - 1))
        scored += 2 * policy.parameters * pairs / rate + scored * 2 / K
    at_once = min(max(1, a.sample_batch // K), n) * K
    engines, item = 1, BYTES[p.dtype]
    if config.rollout.engine == "vllm":
        at_once, engines = min(B, 256), max(1, config.rollout.gpus // config.run.workers)
    steps = R * -(-B // at_once)
    read = item * (policy.parameters + at_once * (P + R // 2) * policy.kv_values) / (m.bytes_per_s * engines)
    decode = 2 * policy.parameters * at_once / (rate * engines)
    prefill = 2 * policy.parameters * n * P / (rate * engines)
    training = a.epochs * passes * forward
    if device == "gpu" and p.offload != "none":  # AdamW in one host thread
        part = trained_parameters(p, policy) / config.run.workers
        training += a.epochs * a.minibatches * ADAMW_BYTES * part / (CPU.bytes_per_s * CPU.utilisation)
    sampling = (prefill + steps * (m.step_s + max(read, decode))) * (K + M) / K
    annotated = (2 + (M / K if config.reward.feedback and config.reward.shaping == "par" else 0)) * forward + scored
    return Guess(sampling, annotated, training, m)


def time_text(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"
