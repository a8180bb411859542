"""Equal cost, by hand: the recipe `forum` has n = 24, K = 4, T = 60, microbatch 96, so 5,760 trajectories."""

import pytest

from r2m.config import load
from r2m.errors import UserError
from r2m.sweeps.cost import equal_cost, microbatch

FORUM = load("forum")


def test_the_base_itself_needs_only_its_evaluations() -> None:
    assert equal_cost(FORUM, {}, None, 10) == {"run.eval_every": 6}  # T = 60
    assert equal_cost(FORUM, {}, 5760, 12) == {}  # every 5 rounds, as the recipe has it


def test_twice_the_responses_are_half_the_queries() -> None:
    assert equal_cost(FORUM, {"algorithm.responses": 8}, None, 10) == {
        "algorithm.queries": 12,
        "algorithm.trajectories": 5760,
        "algorithm.rounds": None,
        "run.eval_every": 6,
    }


def test_a_k_that_does_not_divide_the_round() -> None:
    # 96 // 7 = 13 queries, rounds of 91: T = 5760 // 91 = 63; of 96 in a forward, 13 whole groups of 7
    assert equal_cost(FORUM, {"algorithm.responses": 7}, None, 10) == {
        "algorithm.queries": 13,
        "algorithm.trajectories": 5760,
        "algorithm.rounds": None,
        "algorithm.microbatch": 91,
        "run.eval_every": 6,
    }


def test_queries_come_in_whole_minibatches_of_every_worker() -> None:
    base = load("forum", ["algorithm.minibatches=2", "run.workers=2", "reward.minibatches=3"])
    params = {"algorithm.responses": 5}  # 96 // 5 = 19
    assert equal_cost(base, params, None, 10)["algorithm.queries"] == 12  # lcm(2 * 2, 3 * 2)
    assert equal_cost(base, params | {"reward.feedback": False}, None, 10)["algorithm.queries"] == 16
    assert equal_cost(base, params | {"algorithm.minibatches": 3}, None, 10)["algorithm.queries"] == 18


def test_queries_that_are_searched_are_left_alone() -> None:
    assert equal_cost(FORUM, {"algorithm.queries": 10}, None, 10) == {
        "algorithm.trajectories": 5760,  # T = 5760 // 40 = 144
        "algorithm.rounds": None,
        "run.eval_every": 14,
    }


def test_a_budget_of_its_own() -> None:
    assert equal_cost(FORUM, {}, 1000, 10) == {
        "algorithm.trajectories": 1000,  # T = 10
        "algorithm.rounds": None,
        "run.eval_every": 1,
    }
    assert equal_cost(FORUM, {}, 300, 10)["run.eval_every"] == 1  # T = 3


def test_a_base_that_counts_trajectories() -> None:
    base = load("forum", ["algorithm.rounds=null", "algorithm.trajectories=1000"])  # T = 10, which spends 960
    assert equal_cost(base, {}, None, 2) == {}
    assert equal_cost(base, {"algorithm.responses": 8}, None, 2) == {
        "algorithm.queries": 12,
        "algorithm.trajectories": 960,
    }


def test_no_query_left() -> None:
    with pytest.raises(UserError, match=r"algorithm.responses = 97: a round of 96 trajectories has no query left"):
        equal_cost(FORUM, {"algorithm.responses": 97}, None, 10)


@pytest.mark.parametrize(
    ("K", "most", "expected"), [(4, 96, 96), (7, 96, 91), (8, 4, 4), (12, 8, 6), (7, 4, 1), (5, 5, 5)]
)
def test_microbatch(K: int, most: int, expected: int) -> None:
    assert microbatch(K, most) == expected
