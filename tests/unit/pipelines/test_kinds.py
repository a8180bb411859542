"""What a step's key depends on: its settings, what it reads, the versions; not where anything lies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r2m.pipelines.contents import Contents
from r2m.pipelines.kinds import STEP_KINDS
from r2m.pipelines.spec import key_of, settings_of
from r2m.pipelines.steps import train
from r2m.pipelines.steps.train import TrainStep
from tests.made_runs import MadeRuns

SFT, REWARD, TRAIN = {"recipe": "forum"}, {"recipe": "forum", "policy": "SFT"}, {"recipe": "forum"}


@pytest.fixture
def models(tmp_path: Path) -> dict[str, str]:
    """Folders by the word that stands for them."""
    for name in ("SFT", "REWARD"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
    return {name: str(tmp_path / name) for name in ("SFT", "REWARD")}


@pytest.fixture
def key(models: dict[str, str], tmp_path: Path) -> Callable[..., str]:
    def key(use: str, tree: Any, storage: Path = tmp_path) -> str:
        def placed(value: Any) -> Any:
            if isinstance(value, dict):
                return {k: placed(v) for k, v in value.items()}
            return models.get(value, value) if isinstance(value, str) else value

        step = settings_of(STEP_KINDS[use].settings, placed(tree), "step")
        return key_of(use, step, Contents(str(storage), storage / "memo"), "night")

    return key


Key = Callable[..., str]


def test_a_setting_of_the_reward_model_is_nothing_to_the_supervised_policy(key: Key) -> None:
    for setting in ("task.artefact", "task.label_noise", "task.space_pairs"):
        assert key("sft", SFT | {"set": {setting: 0.125}}) == key("sft", SFT)
        assert key("reward-model", REWARD | {"set": {setting: 0.125}}) != key("reward-model", REWARD)
    assert key("sft", SFT | {"set": {"reward.alpha": 0.4, "algorithm.rounds": 5}}) == key("sft", SFT)


def test_a_setting_of_the_task_is_something_to_both(key: Key) -> None:
    for setting, value in {"task.seed": 1, "task.posts": 100, "task.sft_steps": 5}.items():
        assert key("sft", SFT | {"set": {setting: value}}) != key("sft", SFT)
        assert key("reward-model", REWARD | {"set": {setting: value}}) != key("reward-model", REWARD)


def test_weights_count_and_where_they_lie_does_not(key: Key, models: dict[str, str], tmp_path: Path) -> None:
    arms = {"recipe": "forum", "set": {"policy.model": "SFT", "reward.model": "REWARD"}}
    before = key("reward-model", REWARD), key("train", arms)
    models |= {name: shutil.copytree(path, tmp_path / f"copy of {name}") for name, path in models.items()}
    models |= {name: str(path) for name, path in models.items()}
    assert (key("reward-model", REWARD), key("train", arms)) == before
    Path(models["REWARD"], "weights").write_text("new")
    assert key("reward-model", REWARD) == before[0]
    assert key("train", arms) != before[1]
    Path(models["SFT"], "weights").write_text("new")
    assert key("reward-model", REWARD) != before[0]


@pytest.mark.parametrize(("use", "tree"), [("sft", SFT), ("reward-model", REWARD), ("train", TRAIN)])
def test_a_key_is_the_same_under_another_storage(key: Key, tmp_path: Path, use: str, tree: Any) -> None:
    assert key(use, tree, tmp_path / "a") == key(use, tree, tmp_path / "b")


def test_a_version_that_is_raised_changes_the_key(key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key("sft", SFT)
    monkeypatch.setitem(STEP_KINDS, "sft", replace(STEP_KINDS["sft"], version=2))
    assert key("sft", SFT) != before


def runs_keys(tmp_path: Path, **tree: Any) -> dict[tuple[str, int], str]:
    step = settings_of(TrainStep, TRAIN | tree, "step")
    return train._keys(step, Contents(str(tmp_path), tmp_path))


def test_an_arm_or_a_seed_more_is_that_and_nothing_else(tmp_path: Path) -> None:
    arms = {"RLOO": {"reward.feedback": False}, "R2M": {}}
    two = runs_keys(tmp_path, arms=arms, seeds=[0, 1])
    assert len(set(two.values())) == 4
    more = runs_keys(tmp_path, arms=arms | {"half": {"reward.alpha": 0.25}}, seeds=[0, 1, 2])
    assert len(set(more.values())) == 9
    assert {cell: more[cell] for cell in two} == two
    assert runs_keys(tmp_path, arms=arms, seeds=[1])["R2M", 1] == two["R2M", 1]


def test_an_arm_is_its_settings_not_its_label(tmp_path: Path) -> None:
    one = runs_keys(tmp_path, arms={"a": {"reward.feedback": False}}, seeds=[0])
    other = runs_keys(tmp_path, arms={"b": {"reward.feedback": False}}, seeds=[0])
    assert one["a", 0] == other["b", 0]


def test_evaluation_and_comparison_are_of_the_runs_journals(key: Key, runs: MadeRuns) -> None:
    runs.run("a", [0.1])
    runs.run("b", [0.2])
    uses = {"evaluate": {"runs": ["a", "b"]}, "compare": {"runs": ["a", "b"]}, "alarm-check": {"runs": ["a", "b"]}}
    before = {use: key(use, tree, runs.storage) for use, tree in uses.items()}
    assert {use: key(use, tree, runs.storage) for use, tree in uses.items()} == before
    (runs.storage / "runs" / "a" / "assessment.json").write_text("{}")
    after = {use: key(use, tree, runs.storage) for use, tree in uses.items()}
    assert [use for use in uses if after[use] != before[use]] == ["compare"]
    with open(runs.storage / "runs" / "b" / "journal.jsonl", "a") as journal:
        journal.write('{"kind": "event", "name": "resume", "time": 1}\n')
    last = {use: key(use, tree, runs.storage) for use, tree in uses.items()}
    assert [use for use in uses if last[use] == after[use]] == []
    assert key("evaluate", {"runs": ["a"], "prompts": 8}, runs.storage) != key(
        "evaluate", {"runs": ["a"]}, runs.storage
    )


def test_a_search_is_its_file_by_what_it_says(key: Key, tmp_path: Path) -> None:
    text = "recipe: forum\nparameters: {reward.alpha: {uniform: [0, 1]}}\nobjectives: [{metric: eval/gold}]\n"
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text(text)
    one = {"file": str(tmp_path / "one.yaml")}
    assert key("sweep", one) == key("sweep", {"file": str(tmp_path / "two.yaml")})
    assert key("sweep", one) != key("sweep", one | {"set": {"algorithm.rounds": 5}})
    (tmp_path / "one.yaml").write_text(text.replace("[0, 1]", "[0, 0.5]"))
    assert key("sweep", one) != key("sweep", {"file": str(tmp_path / "two.yaml")})
