"""Judgements of the policy's own samples, by which the head learns in the place of its own scores.

The honest ceiling of what a head can learn from a round: an outside judge, gold or another reward model, names the
best and the worst response (Alg. 1 line 16) of so many groups, and the head learns from these alone. arXiv 2505.18126
compares such labels with ensembles and averaged weights.

Axes: N queries of this worker, K responses.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from r2m.config import Reward
from r2m.core.trajectories import Trajectories, split
from r2m.policy.forward import HiddenStates
from r2m.policy.queries import Query
from r2m.reward.reward import RoundReward, Scored
from r2m.workers import Workers


def taught_groups(N: int, settings: Reward, workers: Workers) -> list[range]:
    """Of each minibatch of the head, which of this worker's groups it learns from: all, or with labels the first
    ones of the minibatch. The same groups of the round whatever the number of workers."""
    labelled = settings.labels // (settings.minibatches * workers.size)
    return [minibatch[:labelled] if settings.labels else minibatch for minibatch in split(N, settings.minibatches)]


class LabelledReward:
    """A reward that learns, with a judge's labels beside its scores of a round."""

    def __init__(
        self, reward: RoundReward, judge: Callable[[Sequence[Query], Trajectories], Tensor], settings: Reward,
        workers: Workers,
    ) -> None:  # fmt: skip
        """`judge`: scores NK of whole groups; it is asked about those alone that are labelled."""
        self._reward, self._judge, self._settings, self._workers = reward, judge, settings, workers
        self.reads_hidden, self.learns = reward.reads_hidden, reward.learns

    def score(
        self, queries: Sequence[Query], t: Trajectories, hidden: HiddenStates | None, step: int, *,
        greedy: bool = False,
    ) -> Scored:  # fmt: skip
        scored = self._reward.score(queries, t, hidden, step, greedy=greedy)
        if greedy:
            return scored
        labels_NK = torch.zeros_like(scored.scores_NK)
        for groups in taught_groups(len(queries), self._settings, self._workers):
            at = slice(groups.start, groups.stop)
            labels_NK[at] = self._judge(queries[at], t.block(at)).to(labels_NK)
        return scored._replace(labels_NK=labels_NK)

    def rescore(self, scored: Scored, groups: slice) -> Tensor:
        return self._reward.rescore(scored, groups)

    def step(self) -> float:
        return self._reward.step()
