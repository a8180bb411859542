"""Rewards around another one, that reshape or penalise its scores. The head, if there is one, is the inner reward's:
it scores again as it learns without them, from the pair that the reshaped scores choose.

Axes: N queries of this worker, K responses, M reference responses, D width of the reward model.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from r2m.config import Reward
from r2m.core.reshaping import adversarial_shift, length_penalised, preference_as_reward, uncertainty
from r2m.core.trajectories import Trajectories
from r2m.policy.forward import HiddenStates
from r2m.policy.queries import Query
from r2m.reward.reward import RoundReward, Scored
from r2m.reward.scoring import RewardEmbedder
from r2m.workers import Workers

Write = Callable[[Sequence[Query]], Trajectories]  # the reference policy's M responses to each query
States = Callable[[Trajectories], HiddenStates | None]  # the policy's hidden states, where they are read


class ByPrompt:
    """What the reference policy's responses to a prompt come to, worked out once: a worker keeps it, in host memory,
    of each prompt that it has met."""

    def __init__(self, write: Write, workers: Workers) -> None:
        self._write, self._workers = write, workers
        self._known: dict[tuple[int, ...], Tensor] = {}  # by a prompt's ids

    def __call__(
        self, queries: Sequence[Query], device: torch.device, of: Callable[[Trajectories], Tensor], keep: bool = True
    ) -> Tensor:
        """Rows N of what `of` makes of the queries' references; with `keep` off, of them anew."""
        known, keys = self._known, [tuple(query.ids) for query in queries]
        # Weights may be spread: all workers sample, or none does.
        if self._workers.any(not keep or not known.keys() >= {*keys}, device):
            rows = of(self._write(queries))
            if not keep:
                return rows
            known.update(zip(keys, rows.cpu(), strict=True))
        return torch.stack([known[key] for key in keys]).to(device)


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
        return scored._replace(scores_NK=self.reshape(queries, t, scored, step, greedy))

    def reshape(self, queries: Sequence[Query], t: Trajectories, scored: Scored, step: int, greedy: bool) -> Tensor:
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

    def reshape(self, queries: Sequence[Query], t: Trajectories, scored: Scored, step: int, greedy: bool) -> Tensor:
        r = self._settings
        return length_penalised(scored.scores_NK, t.lengths_NK, r.length_penalty, r.length_free)


class PreferenceAsReward(Reshaped):
    """PAR: against the reference policy's responses to the same prompt, scored by the inner reward as it is now: once
    for all where that does not learn."""

    def __init__(self, inner: RoundReward, references: ByPrompt, states: States) -> None:
        super().__init__(inner)
        self._references, self._states = references, states

    def reshape(self, queries: Sequence[Query], t: Trajectories, scored: Scored, step: int, greedy: bool) -> Tensor:
        def scores(references: Trajectories) -> Tensor:
            hidden = self._states(references) if self.reads_hidden else None
            return self._inner.score(queries, references, hidden, step).scores_NK

        device = scored.scores_NK.device
        return preference_as_reward(
            scored.scores_NK, self._references(queries, device, scores, keep=not self.reads_hidden)
        )


class Uncertain(Reshaped):
    """Less `reward.uncertainty` times how far the reward model's last-layer features are from its training data's:
    each response's own, or AdvPO's, along the direction in which the round's features have left the references'."""

    def __init__(
        self, inner: RoundReward, settings: Reward, scorer: RewardEmbedder, precision_DD: Tensor,
        references: ByPrompt, workers: Workers,
    ) -> None:  # fmt: skip
        super().__init__(inner)
        self._settings, self._scorer, self._references, self._workers = settings, scorer, references, workers
        self._precision_DD = precision_DD

    def reshape(self, queries: Sequence[Query], t: Trajectories, scored: Scored, step: int, greedy: bool) -> Tensor:
        r, e_NKD = self._settings, scored.H_NKD
        if r.uncertainty_form == "response":
            return scored.scores_NK - r.uncertainty * uncertainty(e_NKD, self._precision_DD)

        def features(references: Trajectories) -> Tensor:
            return self._scorer.embed(queries, references).mean(1)

        if not greedy:  # those are judged by the direction of the others
            gap_ND = e_NKD.mean(1) - self._references(queries, e_NKD.device, features)
            self._g_D = self._workers.sum(gap_ND.sum(0)) / (len(queries) * self._workers.size)
        return scored.scores_NK - r.uncertainty * adversarial_shift(e_NKD, self._g_D, self._precision_DD)


def reshaped(
    inner: RoundReward, settings: Reward, scorer: RewardEmbedder, precision_DD: Tensor | None, write: Write,
    states: States, workers: Workers,
) -> RoundReward:  # fmt: skip
    """The reward as `settings` have it: penalties first, so that PAR compares responses and references alike.
    `precision_DD`: of the reward model's training features, where a penalty is by them."""
    if precision_DD is not None:
        inner = Uncertain(inner, settings, scorer, precision_DD, ByPrompt(write, workers), workers)
    if settings.length_penalty:
        inner = LengthPenalised(inner, settings)
    if settings.shaping == "par":
        inner = PreferenceAsReward(inner, ByPrompt(write, workers), states)
    return inner
