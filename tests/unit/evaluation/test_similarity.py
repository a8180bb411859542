"""Similarities of hidden states: by hand, and against a double loop."""

import math
from dataclasses import astuple

import pytest
import torch

from r2m.evaluation.similarity import by_kind, cosines, mean_token, over_training


def slow_cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    products = [sum(float(x) * float(y) for x, y in zip(u, v, strict=True)) for u, v in ((a, b), (a, a), (b, b))]
    return products[0] / math.sqrt(products[1] * products[2])


def test_by_hand() -> None:
    hacking_HD = torch.tensor([[1.0, 0.0], [0.0, 2.0]])  # at right angles
    normal_ND = torch.tensor([[-3.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])  # the same direction
    found = by_kind(hacking_HD, normal_ND)
    assert found.hacking == pytest.approx(0)
    assert found.normal == pytest.approx(1)
    assert found.cross == pytest.approx(-0.5)  # -1 for the first, 0 for the second


def test_against_a_double_loop() -> None:
    draws = torch.Generator().manual_seed(0)
    h, n = torch.randn(5, 7, generator=draws), torch.randn(4, 7, generator=draws)
    within = [[slow_cosine(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j] for x in (h, n)]
    across = [slow_cosine(a, b) for a in h for b in n]
    expected = [sum(values) / len(values) for values in (*within, across)]
    assert list(astuple(by_kind(h, n))) == pytest.approx(expected, abs=1e-9)


def test_one_of_a_kind_has_no_pair() -> None:
    with pytest.raises(ValueError, match="1 hacking and 2 normal"):
        by_kind(torch.ones(1, 2), torch.ones(2, 2))


def test_the_mean_is_over_tokens_alone() -> None:
    hidden_BTD = torch.tensor([[[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 7.0], [7.0, 7.0]]])
    mask_BT = torch.tensor([[False, True, True], [True, False, False]])
    assert mean_token(hidden_BTD, mask_BT).tolist() == [[2.0, 3.0], [5.0, 6.0]]
    assert mean_token(hidden_BTD, torch.zeros(2, 3, dtype=torch.bool)).tolist() == [[0, 0], [0, 0]]


def test_a_vector_without_direction_is_like_none() -> None:
    assert cosines(torch.zeros(1, 3), torch.ones(1, 3)).item() == 0


def test_over_training_compares_a_pair_with_itself() -> None:
    vectors_SBD = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(1))
    matrices = over_training(vectors_SBD)
    assert matrices.shape == (2, 3, 3)
    for b in range(2):
        for s in range(3):
            for r in range(3):
                expected = slow_cosine(vectors_SBD[s, b], vectors_SBD[r, b])
                assert matrices[b, s, r].item() == pytest.approx(expected, abs=1e-9)
