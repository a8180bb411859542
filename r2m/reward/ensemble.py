"""Ensembles of reward models, and one model of their averaged weights (WARM).

Axes: N queries of this worker, K responses, M members.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from r2m.config import Reward
from r2m.core.reshaping import ensemble_score
from r2m.core.trajectories import Trajectories
from r2m.errors import UserError
from r2m.policy.forward import HiddenStates
from r2m.policy.queries import Query
from r2m.reward.model import RewardModel
from r2m.reward.reward import RoundReward, Scored


class EnsembleReward:
    """Scores by all members. The vanilla score stays the reward model's own: it is the first member."""

    reads_hidden = learns = False

    def __init__(self, vanilla: RoundReward, others: Sequence[RoundReward], settings: Reward) -> None:
        """`others`: the further members; of WARM, the one model of all members' weights."""
        self._vanilla, self._others, self._settings = vanilla, others, settings

    def score(
        self, queries: Sequence[Query], t: Trajectories, hidden: HiddenStates | None, step: int, *,
        greedy: bool = False,
    ) -> Scored:  # fmt: skip
        scored, r = self._vanilla.score(queries, t, hidden, step, greedy=greedy), self._settings
        others = [other.score(queries, t, hidden, step, greedy=greedy).scores_NK for other in self._others]
        if r.ensemble == "warm":
            return scored._replace(scores_NK=others[0])
        scores_NK = ensemble_score(torch.stack([scored.scores_NK, *others]), r.ensemble, r.uwo_lambda)
        return scored._replace(scores_NK=scores_NK)

    def rescore(self, scored: Scored, groups: slice) -> Tensor:
        raise NotImplementedError("nothing of it learns")

    def step(self) -> float:
        raise NotImplementedError("nothing of it learns")


def averaged(models: Iterable[RewardModel]) -> RewardModel:
    """WARM: one model, with the mean of the members' weights, the score layer's and its centring included (Ramé et
    al., 2024, arXiv 2401.12187). They are added up in fp32, one after the other: two are in memory at a time.

    Raises UserError for members of unequal architectures.
    """
    members = iter(models)
    model = next(members)
    kept = model.state_dict()
    total = {name: w.float().clone() for name, w in kept.items() if w.is_floating_point()}
    count = 1
    for member in members:
        own = member.state_dict()
        if {name: w.shape for name, w in own.items()} != {name: w.shape for name, w in kept.items()}:
            raise UserError("reward.ensemble = 'warm': the members' weights differ in shape, and have no average")
        for name, weight in total.items():
            weight += own[name].float()
        count += 1
    # New tensors: the old ones may be a file's.
    model.load_state_dict({n: (total[n] / count).to(w) if n in total else w for n, w in kept.items()}, assign=True)
    return model.requires_grad_(False)
