"""What a sweep may cost, and equal cost: every run of it spends the same trajectories, whatever its K.

n queries, K responses of each, T rounds; a round has n·K trajectories.
"""

from collections.abc import Mapping
from math import lcm
from typing import Annotated, Any

from pydantic import Field

from r2m.config import Config, Count, Positive, Section, Whole
from r2m.config.paths import setting
from r2m.errors import UserError


class Budget(Section):
    trials: Annotated[Whole, Field(le=100_000)] = 20  # 0: no search, the baselines alone
    trajectories: Count | None = None  # of a run; null: what the recipe, with `set`, spends
    hours: Positive | None = None  # of the sweep
    concurrent: Count | None = None  # trials; null: as many as fit
    evaluations: Count = 10  # of a run, at least, where it has as many rounds
    gpu_share: Annotated[Positive, Field(le=1)] = 1.0  # of a GPU, for a worker


def equal_cost(base: Config, params: Mapping[str, Any], trajectories: int | None, evaluations: int) -> dict[str, Any]:
    """The settings that give a run with `params` the base's cost, those that the base has already left out.

    The run's rounds have as many of the base's n·K trajectories as whole queries allow (n itself is taken where
    `params` has it), and T follows from the budget, `trajectories` or what the base spends. Hence
    budget - n·K < T·n·K <= budget. It is evaluated every max(1, T // evaluations) rounds.

    Raises UserError where K is so large that a round has no query left.
    """
    a = base.algorithm

    def value(key: str) -> Any:
        return params.get(key, setting(base, key))

    K, round_of_base = value("algorithm.responses"), a.queries * a.responses
    n = params.get("algorithm.queries")
    if n is None:
        unit = value("algorithm.minibatches") * base.run.workers
        if value("reward.feedback"):
            unit = lcm(unit, value("reward.minibatches") * base.run.workers)
        n = round_of_base // K // unit * unit
        if n == 0:
            raise UserError(
                f"algorithm.responses = {K}: a round of {round_of_base} trajectories has no query left "
                f"(minibatches and workers take {unit} at a time)"
            )
    own = a.total_rounds * round_of_base
    budget = trajectories or own
    settings: dict[str, Any] = {"algorithm.queries": n}
    if (budget, n, K) != (own, a.queries, a.responses):
        settings |= {"algorithm.trajectories": budget, "algorithm.rounds": None}
    settings["algorithm.microbatch"] = microbatch(K, a.microbatch)
    settings["run.eval_every"] = max(1, budget // (n * K) // evaluations)
    return {key: v for key, v in settings.items() if key not in params and v != setting(base, key)}


def microbatch(K: int, most: int) -> int:
    """Trajectories a forward, at most `most`: the largest multiple of K, or, where K is more, divisor of K."""
    return most // K * K if most >= K else next(m for m in range(most, 0, -1) if K % m == 0)
