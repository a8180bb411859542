"""ODIN's losses by hand."""

import pytest
import torch

from r2m.core.odin import feature_loss, orthogonality_loss, pearson


def test_pearsons_correlation_by_hand() -> None:
    x, y = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 1.0, 6.0])
    # about their means: (-1, 0, 1) and (-1, -2, 3): 4 / (√2 √14)
    assert float(pearson(x, y)) == pytest.approx(4 / 28**0.5)
    assert float(pearson(x, -5 * x + 1)) == pytest.approx(-1)
    numbers = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pearson(*numbers), torch.corrcoef(numbers)[0, 1])


def test_what_does_not_vary_has_no_correlation_and_no_gradient() -> None:
    x = torch.ones(3, requires_grad=True)
    for other in (torch.tensor([1.0, 2.0, 3.0]), torch.ones(3)):
        value = pearson(x, other)
        value.backward()
        assert float(value.detach()) == 0
        assert x.grad is not None
        assert x.grad.tolist() == [0, 0, 0]


def test_the_loss_of_the_feature_by_hand() -> None:
    feature = torch.tensor([0.0, 0.0, 1.0, 1.0])
    apart = torch.tensor([0.0, 1.0, 0.0, 1.0])  # has nothing to do with it
    assert float(feature_loss(apart, feature, feature)) == pytest.approx(-1)  # 0 - 1, the least
    assert float(feature_loss(-feature, feature, feature)) == pytest.approx(
        0
    )  # |-1| - 1: against it is as bad as with
    assert float(feature_loss(feature, -feature, feature)) == pytest.approx(2)
    half = apart + feature  # (0, 1, 1, 2): about the mean (-1, 0, 0, 1), the feature ∓1/2: 1 / √2
    assert float(feature_loss(half, apart, feature)) == pytest.approx(0.5**0.5)


def test_heads_are_orthogonal_whatever_their_lengths() -> None:
    assert float(orthogonality_loss(torch.tensor([[3.0, 0.0], [0.0, 0.1]]))) == 0
    assert float(orthogonality_loss(torch.tensor([[2.0, 0.0], [-3.0, -4.0]]))) == pytest.approx(3 / 5)
