"""Scores with policy feedback, and the ablation that puts Gaussian noise in the feedback's place (Table 5, Fig. 4).

Axes: N queries of this worker, K responses, B trajectories, T tokens, D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from r2m.config import Algorithm, Reward
from r2m.core.feedback_head import FeedbackHead
from r2m.core.seeds import generator
from r2m.core.trajectories import Trajectories, microbatches
from r2m.policy.forward import HiddenStates, policy_forward
from r2m.policy.queries import Query
from r2m.reward.scoring import RewardEmbedder, end_token_rule
from r2m.workers import Workers


class NoiseStates:
    """Stands in for the hidden states of a round: the same rows, and each component of each an independent Gaussian.

    A component has the mean and the (population) standard deviation that it has in `hidden`, as that is now, over
    all tokens of all workers' trajectories. A trajectory's noise is a function of (stream, seed, step, query,
    response): the same whenever the round reads it, and on any number of workers.
    """

    def __init__(
        self, hidden: HiddenStates, t: Trajectories, batch: int, workers: Workers, stream: str, seed: int, step: int
    ) -> None:  # fmt: skip
        """`t`: the trajectories of `hidden`; `batch`: how many of them are looked at together."""
        N, self._K = t.ended_NK.shape
        self._hidden, self._workers, self._stream, self._seed = hidden, workers, f"{stream} {step}", seed
        parts = []  # per chunk and component: number, sum and sum of squares
        for groups, _ in microbatches(range(N), self._K, max(batch, self._K)):
            hidden_BTD, mask_BT = hidden.rows(groups, t.ended_NK.device)
            real_D = hidden_BTD[mask_BT].double()
            parts.append(torch.stack([torch.ones_like(real_D), real_D, real_D.square()]).sum(1))
        count_D, sum_D, square_D = workers.sum(torch.stack(parts).sum(0)).cpu()
        self.mean_D = sum_D / count_D
        self.std_D = (square_D / count_D - self.mean_D.square()).clamp(min=0).sqrt()

    def rows(self, queries: slice, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """As HiddenStates.rows, with noise for h."""
        hidden_BTD, mask_BT = self._hidden.rows(queries, device)
        noise_BTD = torch.zeros_like(hidden_BTD)
        first = queries.start * self._K
        for b, mask_T in enumerate(mask_BT):
            n, k = divmod(first + b, self._K)
            row = (self._workers.rank + n * self._workers.size) * self._K + k  # in the round of all workers
            # As many values as the trajectory has tokens: padding, which other rows decide, draws none.
            shape = int(mask_T.sum()), len(self.mean_D)
            normal_TD = torch.randn(shape, generator=generator(self._stream, self._seed, row))
            noise_BTD[b, mask_T] = (self.mean_D + self.std_D * normal_TD).to(noise_BTD)
        return noise_BTD, mask_BT


def feedback_scores(
    head: FeedbackHead, H_NKD: Tensor, h: HiddenStates | NoiseStates, t: Trajectories, omega: float, batch: int,
    reward: Reward,
) -> Tensor:  # fmt: skip
    """Scores NK with policy feedback h (Alg. 1 line 8), after the rule for responses without an end token."""
    N, K = t.ended_NK.shape
    raw_NK = torch.cat([
        head(H_NKD[groups].flatten(0, 1), *h.rows(groups, t.ended_NK.device), omega).view(-1, K)
        for groups, _ in microbatches(range(N), K, max(batch, K))
    ])  # fmt: skip
    return end_token_rule(raw_NK, t.ended_NK, reward)


def greedy_scores(
    policy: PreTrainedModel, reward_model: RewardEmbedder, head: FeedbackHead | None, queries: Sequence[Query],
    greedy: Trajectories, omega: float, a: Algorithm, reward: Reward, *, device: torch.device | str,
    workers: Workers, seed: int, step: int,
) -> Tensor:  # fmt: skip
    """Scores N of ReMax's greedy responses by the reward that the round's others have: the vanilla model's, or, at
    the cost of a forward of the policy, that with feedback. `device`: where their hidden states wait."""
    H_N1D = reward_model.embed(queries, greedy)
    if head is None:
        return end_token_rule(reward_model.phi(H_N1D).squeeze(-1), greedy.ended_NK, reward).squeeze(1)
    hidden = HiddenStates(greedy, policy.dtype, device)
    for at in microbatches(range(len(queries)), 1, a.microbatch):
        hidden.store(*at, policy_forward(policy, greedy.block(*at), a.temperature, entropy=False))
    h: HiddenStates | NoiseStates = hidden
    if reward.hidden == "noise":
        h = NoiseStates(hidden, greedy, a.microbatch, workers, "greedy noise", seed, step)
    return feedback_scores(head, H_N1D, h, greedy, omega, a.microbatch, reward).squeeze(1)
