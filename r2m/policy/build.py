"""The policy that a run's settings ask for."""

import torch

from r2m.config import Algorithm, Policy
from r2m.policy.loading import frozen_twin, load_policy
from r2m.policy.policy import TrainedPolicy
from r2m.policy.recompute import recompute_activations
from r2m.policy.whole import WholePolicy
from r2m.workers import Workers


def build_policy(
    path: str, settings: Policy, algorithm: Algorithm, workers: Workers, device: torch.device | str
) -> TrainedPolicy:  # fmt: skip
    """Of a Hugging Face folder or hub id. Raises as `load_policy` and `recompute_activations`."""
    model = load_policy(path, settings.dtype, device)
    if settings.recompute:
        recompute_activations(model, "policy.recompute = true")
    return WholePolicy(model, frozen_twin(model), algorithm, workers)
