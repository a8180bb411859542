"""Rewards around another one, that reshape or penalise its scores. The head, if there is one, is the inner reward's:
it scores again as it learns without them, from the pair that the reshaped scores choose.

Axes: N queries of this worker, K responses, M reference responses.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from r2m.config import Reward
from r2m.core.reshaping import length_penalised, preference_as_reward
from r2m.core.trajectories import Trajectories
from r2m.policy.forward import HiddenStates
from r2m.policy.queries import Query
from r2m.reward.reward import RoundReward, Scored
from r2m.workers import Workers

Write = Callable[[Sequence[Query]], Trajectories]  # the reference policy's M responses to each query
States = Callable[
    [Trajectories], HiddenStates | None
]  # the policy's hidden states of trajectories, where they are read


class Reshaped:
    """The inner reward as it is: what each reshaping leaves to it."""

    def __init__(self, inner: RoundReward) -> None:
        self._inner = inner
        self.reads_hidden, self.learns = inner.reads_hidden, inner.learns

    def score(
        self, queries: Sequence[Query], t: Trajectories, hidden: HiddenStates | None, step: int, *,
        greedy: bool = False,
    ) -> Scored:  # fmt: skip
        scored = self._inner.score(queries, t, hidden, step, greedy=greedy)
        return scored._replace(scores_NK=self.reshape(queries, t, scored, step))

    def reshape(self, queries: Sequence[Query], t: Trajectories, scored: Scored, step: int) -> Tensor:
        """NK, of the inner reward's."""
        raise NotImplementedError

    def rescore(self, scored: Scored, groups: slice) -> Tensor:
        return self._inner.rescore(scored, groups)

    def step(self) -> float:
        return self._inner.step()


class LengthPenalised(Reshaped):
    """Less `reward.length_penalty` for each token of a response beyond `reward.length_free`."""

    def __init__(self, inner: RoundReward, settings: Reward) -> None:
        super().__init__(inner)
        self._settings = settings

    def reshape(self, queries: Sequence[Query], t: Trajectories, scored: Scored, step: int) -> Tensor:
        r = self._settings
        return length_penalised(scored.scores_NK, t.lengths_NK, r.length_penalty, r.length_free)


class PreferenceAsReward(Reshaped):
    """PAR: against the reference policy's responses to the same prompt, scored by the inner reward as it is now.

    A reward that does not learn scores a prompt's references once; a worker keeps M numbers of each prompt that it
    has met.
    """

    def __init__(self, inner: RoundReward, write: Write, states: States, workers: Workers) -> None:
        super().__init__(inner)
        self._write, self._states, self._workers = write, states, workers
        self._known: dict[tuple[int, ...], Tensor] = {}  # ids of a prompt -> M scores

    def reshape(self, queries: Sequence[Query], t: Trajectories, scored: Scored, step: int) -> Tensor:
        return preference_as_reward(scored.scores_NK, self.references(queries, step, scored.scores_NK.device))

    def references(self, queries: Sequence[Query], step: int, device: torch.device) -> Tensor:
        """Scores NM of the reference policy's responses."""
        known, keys = self._known, [tuple(query.ids) for query in queries]
        # Weights may be spread: all workers sample, or none does.
        if self._workers.any(self.reads_hidden or not known.keys() >= {*keys}, device):
            t = self._write(queries)
            hidden = self._states(t) if self.reads_hidden else None
            scores_NM = self._inner.score(queries, t, hidden, step).scores_NK
            if self.reads_hidden:  # they change from round to round
                return scores_NM
            known.update(zip(keys, scores_NM, strict=True))
        return torch.stack([known[key] for key in keys])


def reshaped(inner: RoundReward, settings: Reward, write: Write, states: States, workers: Workers) -> RoundReward:
    """The reward as `settings` have it: penalties first, so that PAR compares responses and references alike."""
    if settings.length_penalty:
        inner = LengthPenalised(inner, settings)
    if settings.shaping == "par":
        inner = PreferenceAsReward(inner, write, states, workers)
    return inner
