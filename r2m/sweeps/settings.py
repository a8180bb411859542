"""The settings that a sweep file gives outright: those of all runs, and those of its baselines."""

import re
from collections.abc import Callable, Container, Mapping
from typing import Any

from r2m.config import Config
from r2m.errors import shown
from r2m.sweeps.space import Params, at, normal

LONGEST_SLUG = 100  # characters of a baseline's name

RESERVED = {  # what `set` may not hold: the sweep itself sets it
    "recipe": "give recipe",
    "run.seed": "give seeds and confirm",
    "run.eval_every": "give budget.evaluations",
    "run.storage": "give --storage",
    "run.tracking_uri": "give --tracking-uri",
}


def slug(name: str) -> str:
    """A baseline's name as its runs' names have it."""
    return re.sub(r"\W+", "-", name.lower()).strip("-")


def check_set(settings: Mapping[str, Any], varied: Container[str], trajectories: int | None) -> None:
    """Raises ValueError for what `set` may not hold. `varied`: the parameters; `trajectories`: of the budget."""
    for key, value in settings.items():
        if key in RESERVED:
            raise ValueError(f"set.{key}: the sweep sets it; {RESERVED[key]}")
        if key in ("algorithm.trajectories", "algorithm.rounds") and trajectories is not None:
            raise ValueError(f"set.{key}: budget.trajectories = {trajectories} sets it; give one")
        if key in varied:
            raise ValueError(f"set.{key}: it is varied under parameters")
        if value is not None and not isinstance(value, str | bool | int | float):
            raise ValueError(
                f"set.{key} = {shown(value)}: give single values by dotted key, such as algorithm.lr: 1e-5"
            )


def checked_baselines(given: Mapping[str, Params], build: Callable[[Params], Config]) -> dict[str, Params]:
    """The baselines as the settings take them. Raises ValueError for a name or settings that cannot be.

    `build`: makes the configuration of settings.
    """
    baselines: dict[str, Params] = {}
    seen: dict[str, str] = {}  # digest of the settings -> name
    slugs = [slug(name) for name in given]
    for name, settings in given.items():
        if not name.isprintable() or len(name) > LONGEST_SLUG:
            raise ValueError(f"baselines.{shown(name)}: {LONGEST_SLUG} printable characters at most are allowed")
        if not re.fullmatch(r"(?!t(rial-)?\d+$)[a-z][a-z0-9_-]*", slug(name)) or slugs.count(slug(name)) > 1:
            raise ValueError(
                f"baselines.{name}: runs are named after it ({slug(name)!r}): it must begin with a letter, be no "
                "trial's name (t001), and differ from the others in letters and digits"
            )
        with at(f"baselines.{name}: "):
            baselines[name] = {key: normal(key, value) for key, value in settings.items()}
            config = build(baselines[name])
        twin = seen.setdefault(config.digest(), name)
        if twin != name:
            raise ValueError(f"baselines.{name}: the same settings as {twin}")
    return baselines
