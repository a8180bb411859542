"""The policy that a run's settings ask for, and what samples from it."""

from collections.abc import Callable

import torch
from transformers import PreTrainedTokenizerBase

from r2m.config import Algorithm, Config, Policy
from r2m.core.advantages import ADVANTAGES
from r2m.errors import UserError
from r2m.policy.loading import frozen_twin, load_policy
from r2m.policy.lora import add_adapters
from r2m.policy.policy import TrainedPolicy
from r2m.policy.recompute import recompute_activations
from r2m.policy.sampling import OwnSampler, ResponseSampler
from r2m.policy.vllm_sampler import StartEngine, VllmSampler, engine_settings
from r2m.policy.whole import WholePolicy
from r2m.workers import Workers


def build_policy(
    path: str, settings: Policy, algorithm: Algorithm, workers: Workers, device: torch.device | str, seed: int
) -> TrainedPolicy:  # fmt: skip
    """Of a Hugging Face folder or hub id; `seed`: of its adapters. Raises as `load_policy`,
    `add_adapters` and `recompute_activations`."""
    # At stage 3 no device has to hold a whole model: its weights wait in host memory, mapped from their file.
    zero3 = settings.sharding == "zero3"
    model, reference = load_policy(path, settings.dtype, "cpu" if zero3 else device), None
    if settings.lora is None:
        reference = frozen_twin(model, share=zero3)
    else:
        add_adapters(model, settings.lora, seed)
    if settings.recompute:
        recompute_activations(model, "policy.recompute = true")
    if settings.sharding == "none":
        return WholePolicy(model, reference, algorithm, workers)
    from r2m.policy.sharded import ShardedPolicy

    return ShardedPolicy(model, reference, settings, algorithm, workers, device)


def build_sampler(
    policy: TrainedPolicy, tokenizer: PreTrainedTokenizerBase, config: Config, workers: Workers, *,
    longest_prompt: int, start_engine: StartEngine | None, told: Callable[[str], None],
) -> ResponseSampler:  # fmt: skip
    """Raises UserError where vLLM is asked for, and nothing is given that starts it."""
    a, run = config.algorithm, config.run
    greedy = ADVANTAGES[a.advantage].greedy
    if config.rollout.engine == "own":
        return OwnSampler(policy, tokenizer, a, workers, greedy=greedy, seed=run.seed, eval_seed=run.eval_seed)
    if start_engine is None:
        raise UserError("rollout.engine = 'vllm': it runs beside Ray's workers alone; own is allowed here")
    engine = start_engine(engine_settings(policy, tokenizer, config, longest_prompt))
    return VllmSampler(
        policy, tokenizer, a, workers, engine, greedy=greedy, seed=run.seed, eval_seed=run.eval_seed, told=told
    )
