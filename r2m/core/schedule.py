"""The weight ω(t) of the reward model's own embedding against the policy's feedback (Eq. 3)."""

import math


def omega(step: float, total_steps: float, omega_min: float, schedule: str = "cosine") -> float:
    """ω(t) = max(cos(πt / T) / 2 + 1/2, Ω): from 1 at t = 0 down to Ω, where it stays (Eq. 3).

    Args:
        step: t, the round, from 0 to total_steps.
        total_steps: T, the rounds of the whole run, at least 1.
        omega_min: Ω, from 0 to 1.
        schedule: "cosine", or "constant": Ω from the start.

    Raises:
        ValueError: an argument outside its range.
    """
    _check(total_steps, omega_min)
    if not 0 <= step <= total_steps:
        raise ValueError(f"step is {step}, allowed: 0 to total_steps = {total_steps}")
    if schedule not in ("cosine", "constant"):
        raise ValueError(f"schedule is {schedule!r}, allowed: cosine, constant")
    if schedule == "constant":
        return omega_min
    return max(0.5 * math.cos(math.pi * step / total_steps) + 0.5, omega_min)


def omega_reaches_minimum(total_steps: float, omega_min: float) -> float:
    """The time t* = T arccos(2Ω - 1) / π, in rounds, from which ω stays at Ω. Same errors as `omega`."""
    _check(total_steps, omega_min)
    return total_steps * math.acos(2 * omega_min - 1) / math.pi


def _check(total_steps: float, omega_min: float) -> None:
    if not total_steps >= 1:
        raise ValueError(f"total_steps is {total_steps}, allowed: at least 1")
    if not 0 <= omega_min <= 1:
        raise ValueError(f"omega_min is {omega_min}, allowed: 0 to 1")
