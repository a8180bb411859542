"""Advantage estimators. Axes: N queries, K responses per query."""

from collections.abc import Callable

from torch import Tensor


def rloo(rewards_NK: Tensor) -> Tensor:
    """REINFORCE leave-one-out: each reward minus the mean of the other K - 1 of its query (Eq. 1).

    Args:
        rewards_NK: scores of the K responses to each of N queries, in reward units.

    Returns:
        Advantages NK, in reward units, not whitened. Each row sums to 0; a row of equal rewards is exactly 0.
        A NaN spoils the row it is in, and no other.

    Raises:
        ValueError: K < 2, which leaves no baseline.
    """
    K = rewards_NK.shape[-1]
    if K < 2:
        raise ValueError(f"rewards_NK: K is {K}, and the leave-one-out baseline needs K >= 2")
    # Relative to the first response: exactly 0 for equal rewards, whose mean may itself be an ulp off.
    relative_NK = rewards_NK - rewards_NK[..., :1]
    return (relative_NK - relative_NK.mean(-1, keepdim=True)) * (K / (K - 1))


ADVANTAGES: dict[str, Callable[[Tensor], Tensor]] = {"rloo": rloo}
