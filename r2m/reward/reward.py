"""The border between Algorithm 1 and the reward: whole groups are scored, and scored again while the head learns.

Axes: N queries of this worker, K responses, D width.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from r2m.config import Reward
from r2m.core.feedback_head import FeedbackHead
from r2m.core.schedule import omega
from r2m.core.trajectories import Trajectories
from r2m.policy.descent import Descent
from r2m.policy.forward import HiddenStates
from r2m.policy.queries import Query
from r2m.reward.feedback import NoiseStates, feedback_scores
from r2m.reward.scoring import RewardEmbedder, end_token_rule
from r2m.workers import Workers


class Scored(NamedTuple):
    """Scores of a round's groups, and what the round scores them again from."""

    scores_NK: Tensor  # that train the policy
    vanilla_NK: Tensor  # of the vanilla reward model
    H_NKD: Tensor  # reward token embeddings
    h: HiddenStates | NoiseStates | None  # the feedback
    omega: float  # ω of the round; 1 without feedback
    labels_NK: Tensor | None = None  # a judge's scores, where they name best and worst (line 16) and not scores_NK


class RoundReward(Protocol):
    """What scores responses; whatever reshapes or penalises a reward is one around another."""

    reads_hidden: bool  # `score` wants the policy's hidden states
    learns: bool  # `rescore` and `step` are of use: lines 15 to 20 of Algorithm 1

    def score(
        self, queries: Sequence[Query], t: Trajectories, hidden: HiddenStates | None, step: int, *,
        greedy: bool = False,
    ) -> Scored:  # fmt: skip
        """Scores of whole groups (Alg. 1 line 8), the rule for a missing end token applied. `greedy`: of ReMax's
        responses, whose noise is of another stream."""

    def rescore(self, scored: Scored, groups: slice) -> Tensor:
        """Scores [groups, K] as the head is now (line 18), with gradients, no rule applied."""

    def step(self) -> float:
        """One step of the head (line 20), as TrainedPolicy.step."""


class VanillaReward:
    """The frozen reward model's own scores."""

    reads_hidden = learns = False

    def __init__(self, model: RewardEmbedder, settings: Reward) -> None:
        self._model, self._settings = model, settings

    def score(
        self, queries: Sequence[Query], t: Trajectories, hidden: HiddenStates | None, step: int, *,
        greedy: bool = False,
    ) -> Scored:  # fmt: skip
        H_NKD = self._model.embed(queries, t)
        vanilla_NK = end_token_rule(self._model.phi(H_NKD).squeeze(-1), t.ended_NK, self._settings)
        return Scored(vanilla_NK, vanilla_NK, H_NKD, None, 1.0)

    def rescore(self, scored: Scored, groups: slice) -> Tensor:
        raise NotImplementedError("nothing of it learns")

    def step(self) -> float:
        raise NotImplementedError("nothing of it learns")


class FeedbackReward:
    """R2M: the policy's hidden states, or noise in their place, by the feedback head on top of the vanilla model."""

    reads_hidden = True

    def __init__(
        self, model: RewardEmbedder, settings: Reward, head: FeedbackHead, descent: Descent | None, *,
        total_rounds: int, microbatch: int, workers: Workers, seed: int,
    ) -> None:  # fmt: skip
        """`descent`: None leaves the head as it is. `seed`: of the noise."""
        self._vanilla, self._settings, self._head, self._descent = (
            VanillaReward(model, settings),
            settings,
            head,
            descent,
        )
        self._total_rounds, self._microbatch, self._workers, self._seed = total_rounds, microbatch, workers, seed
        self.learns = descent is not None

    def score(
        self, queries: Sequence[Query], t: Trajectories, hidden: HiddenStates | None, step: int, *,
        greedy: bool = False,
    ) -> Scored:  # fmt: skip
        assert hidden is not None
        r = self._settings
        vanilla = self._vanilla.score(queries, t, None, step)
        weight = omega(step, self._total_rounds, r.omega_min, r.omega_schedule)  # Eq. 3
        h: HiddenStates | NoiseStates = hidden
        if r.hidden == "noise":  # the ablation
            stream = "greedy noise" if greedy else "noise"
            h = NoiseStates(hidden, t, self._microbatch, self._workers, stream, self._seed, step)
        scores_NK = feedback_scores(self._head, vanilla.H_NKD, h, t, weight, self._microbatch, r)
        return Scored(scores_NK, vanilla.vanilla_NK, vanilla.H_NKD, h, weight)

    def rescore(self, scored: Scored, groups: slice) -> Tensor:
        H_NKD, h = scored.H_NKD[groups], scored.h
        assert h is not None
        rows = h.rows(groups, H_NKD.device)
        return self._head(H_NKD.flatten(0, 1), *rows, scored.omega).view(H_NKD.shape[:2])

    def step(self) -> float:
        assert self._descent is not None
        return self._descent.step()
