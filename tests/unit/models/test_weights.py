"""A model's files, judged without loading them."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from r2m.errors import UserError
from r2m.models.weights import check_sizes, check_weights


@pytest.fixture
def sharded(forum_models: tuple[str, str], tmp_path: Path) -> Path:
    """The same file as two shards of it."""
    folder = tmp_path / "model"
    shutil.copytree(forum_models[0], folder)
    shutil.copy(folder / "model.safetensors", folder / "b.safetensors")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    index(folder, {"x": "a.safetensors", "y": "b.safetensors"})
    return folder


def index(folder: Path, weight_map: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_whole_ones_and_those_on_the_hub(forum_models: tuple[str, str], sharded: Path) -> None:
    for model in (*forum_models, str(sharded), "org/on-the-hub"):
        check_weights(model, "policy.model")


def test_a_shard_is_missing_or_damaged(sharded: Path) -> None:
    os.truncate(sharded / "b.safetensors", 900)
    with pytest.raises(UserError, match=r"^policy.model = .*: b.safetensors is damaged, or cut short"):
        check_weights(str(sharded), "policy.model")
    (sharded / "b.safetensors").unlink()
    with pytest.raises(UserError, match=r"b.safetensors, which its index names, is missing$"):
        check_weights(str(sharded), "policy.model")


@pytest.mark.parametrize("weight_map", [{}, [], 3, {"x": 3}, {"x": "../a.safetensors"}])
def test_an_index_of_no_use(sharded: Path, weight_map: object) -> None:
    index(sharded, weight_map)
    with pytest.raises(UserError, match=r"model.safetensors.index.json is damaged$"):
        check_weights(str(sharded), "policy.model")


@pytest.mark.parametrize(("name", "value"), [("hidden_size", 0), ("num_hidden_layers", 2001), ("vocab_size", 2**31)])
def test_sizes(name: str, value: int) -> None:
    check_sizes(
        SimpleNamespace(hidden_size=1, num_hidden_layers=2000, vocab_size=2**31 - 1, intermediate_size=[1, -2])
    )
    with pytest.raises(ValueError, match=rf"^{name} = {value}: from 1 to"):
        check_sizes(SimpleNamespace(**{name: value}))


def test_a_setting_that_is_no_number() -> None:
    check_sizes(SimpleNamespace(hidden_size=1, rms_norm_eps=1e-6, rope_theta=float("inf")))
    with pytest.raises(ValueError, match=r"^rms_norm_eps = nan: a number is needed$"):
        check_sizes(SimpleNamespace(hidden_size=1, rms_norm_eps=float("nan")))
