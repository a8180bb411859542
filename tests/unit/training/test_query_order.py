"""The data order: permutations, pass after pass, of which any round can be asked."""

import pytest

from r2m.training.query_order import query_indices


def stream(total: int, n: int, steps: int, seed: int = 0) -> list[int]:
    return [i for step in range(1, steps + 1) for i in query_indices(total, n, step, seed)]


@pytest.mark.parametrize(("total", "n"), [(10, 2), (10, 3), (7, 7), (3, 8), (1, 4)])
def test_every_pass_is_a_permutation(total: int, n: int) -> None:
    passes = 5
    indices = stream(total, n, passes * total)
    for start in range(0, passes * total, total):
        assert sorted(indices[start : start + total]) == list(range(total))


def test_passes_differ_and_so_do_seeds() -> None:
    first, second = (query_indices(50, 50, step, 0) for step in (1, 2))
    assert first != second
    assert first != query_indices(50, 50, 1, seed=1)
    assert first == query_indices(50, 50, 1, seed=0)


def test_the_order_does_not_depend_on_the_queries_of_a_round() -> None:
    assert stream(10, 3, 20) == stream(10, 6, 10) == stream(10, 20, 3)


def test_a_round_within_one_pass_has_no_query_twice() -> None:
    for step in range(1, 6):
        assert len(set(query_indices(20, 4, step, 7))) == 4
