"""The policy on prompts that it is never trained on, with draws of their own: evaluating changes nothing.

Axes: N queries of this worker, K = 1 response, R response tokens.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from r2m.alarm.signals import HiddenDistance
from r2m.config import Algorithm, Reward
from r2m.core.feedback_head import FeedbackHead
from r2m.core.trajectories import Trajectories, microbatches
from r2m.policy.forward import HiddenStates
from r2m.policy.policy import TrainedPolicy
from r2m.policy.queries import Query
from r2m.policy.whole import FrozenPolicy
from r2m.reward.feedback import NoiseStates, feedback_scores
from r2m.reward.scoring import RewardEmbedder, end_token_rule
from r2m.workers import Workers


class Evaluation(NamedTuple):
    """Lists are of the held-out prompts of all workers, in their order. `judged`: scores of `run.judge`, else gold;
    None where neither is there. `said`: prompt (text, or a chat's messages), response, the reference's,
    and proxy of each."""

    metrics: dict[str, float]
    judged: list[float] | None
    said: list[dict[str, Any]]


Scorer = Callable[[Sequence[Query], Trajectories], torch.Tensor]  # -> [N, K]


def wins(scores: torch.Tensor, rivals: torch.Tensor) -> torch.Tensor:
    """1 where a response is scored above its rival, 1/2 where they tie, else 0."""
    return (scores > rivals).float() + 0.5 * (scores == rivals).float()


def frozen_judge(scorer: RewardEmbedder) -> Scorer:
    """The scores of a reward model that takes no part in training."""
    return torch.no_grad()(lambda queries, t: scorer.phi(scorer.embed(queries, t)).squeeze(-1))


@torch.no_grad()
def held_out_columns(
    policy: TrainedPolicy | FrozenPolicy,
    reward_model: RewardEmbedder,
    queries: Sequence[Query],
    t: Trajectories,
    head: FeedbackHead | None,
    omega: float,
    algorithm: Algorithm,
    reward: Reward,
    workers: Workers,
    seed: int = 0,
    H_N1D: torch.Tensor | None = None,
    kl: bool = True,
    distance: HiddenDistance | None = None,
    proxy: Callable[[HiddenStates | None], torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Of each response of `t` (K = 1), a tensor N each: eval/vanilla, eval/proxy (the score that would train the
    policy now), eval/response_tokens, with `kl` eval/kl_sequence (nats, to the reference), and where a head reads the
    policy's hidden states eval/noise: the score with Gaussian noise of the same moments in their place (Fig. 4).

    `seed` is that of the noise: the same at every call. `H_N1D`: the reward token embeddings, where there are some
    already. `distance`: is given the hidden states of the forwards that make the KL. `proxy`: scores N1 by a reward
    of which vanilla model and head are but a part, given the policy's hidden states where a head reads them."""
    N, device = len(queries), policy.device
    H_N1D = reward_model.embed(queries, t) if H_N1D is None else H_N1D
    vanilla_N = end_token_rule(reward_model.phi(H_N1D).squeeze(-1), t.ended_NK, reward).squeeze(1)
    columns = {
        "eval/vanilla": vanilla_N,
        "eval/proxy": vanilla_N,
        "eval/response_tokens": t.lengths_NK.squeeze(1).float(),
    }
    if kl:
        columns["eval/kl_sequence"] = torch.zeros(N, device=device)
    hidden = HiddenStates(t, policy.dtype, device) if head is not None else None
    for at in microbatches(range(N), 1, algorithm.microbatch):
        if hidden is None and not kl:
            break
        block = t.block(*at)
        out = policy.forward(block, algorithm.temperature)
        if kl:
            ref = policy.reference(block, algorithm.temperature)
            k1_NKR = (out.log_probs_NKR - ref.log_probs_NKR) * block.response_mask_NKR
            columns["eval/kl_sequence"][at[0]] = k1_NKR.sum((1, 2))
            if distance is not None:
                states = ((o.prompt_hidden_NPD, o.response_hidden_NKRD) for o in (out, ref))
                distance.add(block, *states)
        if hidden is not None:
            hidden.store(*at, out)
    if head is not None and hidden is not None:
        noise = NoiseStates(hidden, t, algorithm.microbatch, workers, "held-out noise", seed, 0)

        def scores_N(h: HiddenStates | NoiseStates) -> torch.Tensor:
            return feedback_scores(head, H_N1D, h, t, omega, algorithm.microbatch, reward).squeeze(1)

        if reward.hidden == "noise":
            columns["eval/proxy"] = scores_N(noise)
        else:
            columns |= {"eval/proxy": scores_N(hidden), "eval/noise": scores_N(noise)}
    if proxy is not None:
        columns["eval/proxy"] = proxy(hidden).squeeze(1)
    return columns
