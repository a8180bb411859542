"""ReMax, REINFORCE++ and its group-baseline variant against verl's definitions, written anew from its description.

verl (github.com/volcengine/verl, verl/trainer/ppo/core_algos.py: compute_remax_outcome_advantage,
compute_reinforce_plus_plus_outcome_advantage, compute_reinforce_plus_plus_baseline_outcome_advantage) works on
rewards of single tokens: -β KL at each, and the score on top at the last one. ReMax and REINFORCE++ take the sum of
what is still to come, with no discount; the group-baseline variant the sum of all. Whitening is over the response
tokens of the batch: (x - mean) / sqrt(var + 1e-8), var over the number of tokens less one.

Here in plain Python, token by token. Axes: N queries, K responses, R response tokens.
"""

import math
import statistics

import pytest
import torch

from r2m.core.advantages import ADVANTAGES, Batch, reward_to_go
from r2m.core.policy_loss import kl_estimate, kl_in_reward

N, K, R = 3, 4, 6
BETA = 0.3
Tokens = dict[tuple[int, int, int], float]


def batch_of(beta: float) -> tuple[Batch, Tokens, list[float]]:
    """A ragged batch as ours, and its rewards token by token."""
    generator = torch.Generator().manual_seed(3)
    scores_NK = torch.randn(N, K, generator=generator, dtype=torch.float64)
    old_NKR, ref_NKR = torch.randn(2, N, K, R, generator=generator, dtype=torch.float64)
    greedy_N = torch.randn(N, generator=generator, dtype=torch.float64)
    lengths_NK = torch.randint(1, R + 1, (N, K), generator=generator)
    mask_NKR = torch.arange(R) < lengths_NK[..., None]
    rewarded_B = kl_in_reward(
        scores_NK.flatten(), old_NKR.flatten(0, 1), ref_NKR.flatten(0, 1), mask_NKR.flatten(0, 1), beta, "k1"
    )
    kl_NKR = kl_estimate(old_NKR, ref_NKR, "k1").masked_fill(~mask_NKR, 0.0)
    ours = Batch(rewarded_B.view(N, K), reward_to_go(scores_NK, kl_NKR, beta), mask_NKR, greedy_N, lambda x: x)
    rewards: Tokens = {}
    for n in range(N):
        for k in range(K):
            length = int(lengths_NK[n, k])
            for t in range(length):
                rewards[n, k, t] = -beta * float(old_NKR[n, k, t] - ref_NKR[n, k, t])
            rewards[n, k, length - 1] += float(scores_NK[n, k])
    return ours, rewards, greedy_N.tolist()


def to_come(rewards: Tokens) -> Tokens:
    return {
        (n, k, t): sum(r for (m, j, s), r in rewards.items() if (m, j) == (n, k) and s >= t) for n, k, t in rewards
    }


def whitened(values: Tokens) -> Tokens:
    mean, variance = statistics.mean(values.values()), statistics.variance(values.values())
    return {at: (v - mean) / math.sqrt(variance + 1e-8) for at, v in values.items()}


def verl_remax(rewards: Tokens, greedy: list[float]) -> Tokens:
    return {at: v - greedy[at[0]] for at, v in to_come(rewards).items()}


def verl_reinforce_pp(rewards: Tokens, _: list[float]) -> Tokens:
    return whitened(to_come(rewards))


def verl_reinforce_pp_baseline(rewards: Tokens, _: list[float]) -> Tokens:
    whole = {(n, k): v for (n, k, t), v in to_come(rewards).items() if t == 0}
    means = [statistics.mean(whole[n, k] for k in range(K)) for n in range(N)]
    return whitened({(n, k, t): whole[n, k] - means[n] for n, k, t in rewards})


@pytest.mark.parametrize("beta", [0.0, BETA], ids=["no KL in the reward", "KL in the reward"])
@pytest.mark.parametrize(
    ("name", "verl"),
    [
        ("remax", verl_remax),
        ("reinforce_pp", verl_reinforce_pp),
        ("reinforce_pp_baseline", verl_reinforce_pp_baseline),
    ],
)
def test_advantages_of_every_token(name: str, verl, beta: float) -> None:
    ours, rewards, greedy = batch_of(beta)
    advantages_NKR = ADVANTAGES[name].advantages(ours).expand(-1, -1, R)
    expected = verl(rewards, greedy)
    assert {at: float(advantages_NKR[at]) for at in expected} == pytest.approx(expected, abs=1e-12)
    without, _, _ = batch_of(0.0)
    if beta:  # else the KL would go untested
        assert (advantages_NKR - ADVANTAGES[name].advantages(without)).abs().max() > 0.01
