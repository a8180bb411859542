"""The policy that a run's settings ask for."""

import torch

from r2m.config import Algorithm, Policy
from r2m.policy.loading import frozen_twin, load_policy
from r2m.policy.lora import add_adapters
from r2m.policy.policy import TrainedPolicy
from r2m.policy.whole import WholePolicy
from r2m.workers import Workers


def build_policy(
    path: str, settings: Policy, algorithm: Algorithm, workers: Workers, device: torch.device | str, seed: int
) -> TrainedPolicy:  # fmt: skip
    """Of a Hugging Face folder or hub id; `seed`: of its adapters. Raises as `load_policy` and `add_adapters`."""
    # At stage 3 no device has to hold a whole model: its weights wait in host memory, mapped from their file.
    zero3 = settings.sharding == "zero3"
    model, reference = load_policy(path, settings.dtype, "cpu" if zero3 else device), None
    if settings.lora is None:
        reference = frozen_twin(model, share=zero3)
    else:
        add_adapters(model, settings.lora, seed)
    if settings.sharding == "none":
        return WholePolicy(model, reference, algorithm, workers)
    from r2m.policy.sharded import ShardedPolicy

    return ShardedPolicy(model, reference, settings, algorithm, workers, device)
