import itertools
import math

import pytest

from r2m.core.schedule import omega, omega_reaches_minimum


@pytest.mark.parametrize(
    ("step", "omega_min", "expected"),
    [
        (0, 0.0, 1.0),
        (25, 0.0, 0.5 + math.sqrt(2) / 4),
        (50, 0.0, 0.5),
        (75, 0.0, 0.5 - math.sqrt(2) / 4),
        (75, 0.5, 0.5),
        (100, 0.0, 0.0),
        (100, 0.3, 0.3),
        (0, 1.0, 1.0),
    ],
)
def test_by_hand(step: int, omega_min: float, expected: float) -> None:
    assert omega(step, 100, omega_min) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("step", [0, 1, 50, 100])
def test_constant_is_the_minimum_from_the_start(step: int) -> None:
    assert omega(step, 100, 0.3, "constant") == 0.3
    with pytest.raises(ValueError, match="schedule is 'linear', allowed: cosine, constant"):
        omega(step, 100, 0.3, "linear")


@pytest.mark.parametrize(("omega_min", "share"), [(0.0, 1.0), (0.25, 2 / 3), (0.5, 0.5), (1.0, 0.0)])
def test_time_of_the_minimum(omega_min: float, share: float) -> None:
    assert omega_reaches_minimum(60, omega_min) == pytest.approx(60 * share)


@pytest.mark.parametrize("omega_min", [0.0, 0.1, 0.6])
def test_falls_until_the_minimum_and_stays(omega_min: float) -> None:
    reached = omega_reaches_minimum(37, omega_min)
    values = [omega(step, 37, omega_min) for step in range(38)]
    for step, (value, following) in enumerate(itertools.pairwise(values)):
        assert following < value if step < reached else following == value == omega_min
    assert min(values) >= omega_min


def test_one_round() -> None:
    assert (omega(0, 1, 0.2), omega(1, 1, 0.2)) == (1.0, 0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, 0.5), "total_steps is 0"),
        ((-1, 10, 0.5), "step is -1, allowed: 0 to total_steps = 10"),
        ((11, 10, 0.5), "step is 11"),
        ((1, 10, -0.1), "omega_min is -0.1, allowed: 0 to 1"),
        ((1, 10, 1.1), "omega_min is 1.1"),
        ((1, 10, math.nan), "omega_min is nan"),
    ],
)
def test_refuses(arguments: tuple[float, float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        omega(*arguments)


def test_time_of_the_minimum_refuses() -> None:
    with pytest.raises(ValueError, match="omega_min is 2"):
        omega_reaches_minimum(10, 2)
    with pytest.raises(ValueError, match="total_steps is 0"):
        omega_reaches_minimum(0, 0.5)
