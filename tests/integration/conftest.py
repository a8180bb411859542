"""Sweeps of the forum shrunk to seconds a trial."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from r2m.config import Config
from r2m.sweeps.sweep import Opened, new_sweep

MakeConfig = Callable[..., Config]
MakeSweep = Callable[..., Opened]

SPACE: dict[str, Any] = {
    "reward.alpha": {"uniform": [0, 1]},
    "reward.omega_min": {"uniform": [0.2, 0.9]},
    "reward.lr": {"loguniform": [1e-4, 1e-2]},
    "algorithm.responses": {"int": [3, 4]},
    "algorithm.lr": {"loguniform": [1e-4, 1e-2]},
}


@pytest.fixture
def sweep_file(make_config: MakeConfig, tmp_path: Path) -> Callable[..., str]:
    """Writes a sweep file over α, Ω, K and both learning rates, with the tiny models; `sections` replace its own."""

    def make(*overrides: str, **sections: Any) -> str:
        recipe = tmp_path / "tiny.yaml"
        recipe.write_text(
            yaml.safe_dump(make_config("run.max_failures=8", *overrides).model_dump(mode="json"))
        )
        tree = {
            "recipe": str(recipe),
            "parameters": SPACE,
            "objectives": [{"metric": "eval/gold"}],
            "budget": {"trials": 3, "evaluations": 2, "concurrent": 2},
            "confirm": [10, 11],
        }
        path = tmp_path / "tiny_sweep.yaml"
        path.write_text(yaml.safe_dump(tree | sections))
        return str(path)

    return make


@pytest.fixture
def make_sweep(sweep_file: Callable[..., str], tmp_path: Path) -> MakeSweep:
    def make(*overrides: str, name: str = "tiny", settings: tuple[str, ...] = (), **sections: Any) -> Opened:
        return new_sweep(sweep_file(*overrides, **sections), name, str(tmp_path / "storage"), settings)

    return make
