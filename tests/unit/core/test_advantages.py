import pytest
import torch

from r2m.core.advantages import ADVANTAGES, rloo


def test_by_hand() -> None:
    rewards_NK = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, -3.0]])
    # 1 - (2 + 6) / 2, 2 - (1 + 6) / 2, 6 - (1 + 2) / 2; 0 - (0 - 3) / 2 twice, -3 - 0
    expected_NK = torch.tensor([[-3.0, -1.5, 4.5], [1.5, 1.5, -3.0]])
    torch.testing.assert_close(rloo(rewards_NK), expected_NK)
    assert ADVANTAGES["rloo"] is rloo


def test_two_responses_are_the_difference() -> None:
    torch.testing.assert_close(rloo(torch.tensor([[5.0, 3.0]])), torch.tensor([[2.0, -2.0]]))


def test_sums_to_zero_shifts_out_and_scales() -> None:
    rewards_NK = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    advantages_NK = rloo(rewards_NK)
    torch.testing.assert_close(advantages_NK.sum(-1), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(rloo(3 * rewards_NK - 10), 3 * advantages_NK)


@pytest.mark.parametrize("value", [0.1, -7.3, 1e4 + 1 / 3])
@pytest.mark.parametrize("K", [2, 3, 7])
def test_equal_rewards_have_advantage_exactly_zero(value: float, K: int) -> None:
    assert rloo(torch.full((1, K), value)).tolist() == [[0.0] * K]


def test_nan_stays_in_its_group() -> None:
    advantages_NK = rloo(torch.tensor([[1.0, float("nan"), 2.0], [1.0, 2.0, 6.0]]))
    assert advantages_NK[0].isnan().all()
    torch.testing.assert_close(advantages_NK[1], torch.tensor([-3.0, -1.5, 4.5]))


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"K is 1.*K >= 2"):
        rloo(torch.zeros(4, 1))
