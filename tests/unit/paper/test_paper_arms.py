"""The arms are what the paper compares, and their sweep is one that can be run."""

from pathlib import Path

import pytest
import yaml

from r2m.config import load, override, recipes
from r2m.paper.arms import ABLATIONS, ARMS, COLLAPSE, METHODS, sweep_tree
from r2m.sweeps.spec import config_of, load_sweep


@pytest.mark.parametrize("label", ARMS)
def test_an_arm_is_what_its_label_says(label: str) -> None:
    config = load("forum", [override(key, value) for key, value in ARMS[label].items()])
    assert config.arm == label.replace("omega", "Ω")


def test_every_row_of_a_table_is_an_arm() -> None:
    assert {*METHODS, *COLLAPSE, *ABLATIONS} == ARMS.keys()


@pytest.mark.parametrize("recipe", recipes())
def test_the_sweep_runs_every_arm_on_every_seed_at_equal_cost(recipe: str, tmp_path: Path) -> None:
    base = load(recipe)
    path = tmp_path / "paper.yaml"
    path.write_text(yaml.safe_dump(sweep_tree(recipe, base, {}, [0, 1, 2])))
    sweep = load_sweep(path)
    assert (sweep.seeds, sweep.confirm, sweep.budget.trials, sweep.baselines.keys()) == (
        [0, 1, 2], [], 0, ARMS.keys(),
    )  # fmt: skip
    T = base.algorithm.total_rounds
    for settings in sweep.baselines.values():
        config = config_of(sweep, settings, 0)
        assert config.algorithm.total_rounds == T
        saved = [t for t in range(1, T + 1) if t % config.run.checkpoint_every == 0 or t == T]
        assert min(T, 3) <= len(saved) <= config.run.keep_checkpoints
        assert T // config.run.eval_every >= min(T, 12)
