"""The plan of a configuration on this machine."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from r2m.config import load
from r2m.training.preflight import plan_for


@pytest.mark.parametrize(
    ("mean", "no_eos", "said"),
    [(None, "replace", True), (None, "keep", False), (None, "subtract", False), (0.1, "replace", False)],
)
def test_a_reward_of_unknown_mean_is_said_where_a_rule_rests_on_it(
    forum_models: tuple[str, str], text_recipe: Callable[..., str], tmp_path: Path,
    mean: float | None, no_eos: str, said: bool,
) -> None:  # fmt: skip
    folder = tmp_path / "reward"
    folder.mkdir()
    for file in Path(forum_models[1]).iterdir():
        (folder / file.name).symlink_to(file)
    tree = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    tree.pop("reward_mean")
    (folder / "config.json").write_text(json.dumps(tree | ({} if mean is None else {"reward_mean": mean})))
    settings = [f"reward.model={folder}", f"reward.no_eos={no_eos}"]
    notes = plan_for(load(text_recipe([{"prompt": "mom"}] * 8), settings)).notes
    assert any("config has no reward_mean" in note for note in notes) == said
