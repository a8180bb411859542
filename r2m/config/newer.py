"""Settings that are newer than runs and models that are kept: at these values, under which nothing differs from
before, they are no part of a digest, so that what was made without them is still found, resumed and read."""

from typing import Any

NEWER: dict[str, dict[str, Any]] = {
    "task": {"rrm": 0.0, "odin": "none"},
    "reward": {
        "residual": True,
        "head_gain": 0.02,
        "labels": 0,
        "anchor": 0.0,
        "anchor_data": None,
        "shaping": "none",
        "par_references": 1,
        "length_penalty": 0.0,
        "length_free": 0,
        "ensemble": "none",
        "members": 5,
        "members_differ": "init",
        "uwo_lambda": 0.1,
        "uncertainty": 0.0,
        "uncertainty_form": "response",
    },
}


def as_before(section: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a section without the newer ones that have the value under which they do nothing."""
    newer = NEWER.get(section, {})
    return {key: value for key, value in settings.items() if key not in newer or value != newer[key]}
