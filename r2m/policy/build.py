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
    model, reference = load_policy(path, settings.dtype, device), None
    if settings.lora is None:
        reference = frozen_twin(model)
    else:
        add_adapters(model, settings.lora, seed)
    return WholePolicy(model, reference, algorithm, workers)
