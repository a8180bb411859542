"""Configurations read without transformers say what transformers would, or nothing."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from transformers import CONFIG_MAPPING, AutoConfig

from r2m.errors import UserError
from r2m.models.dense import FAMILIES, NEEDED, dense_config
from r2m.models.dimensions import PUBLISHED, config_for_planning, forum_dimensions
from r2m.stages.forum import new_policy
from r2m.tasks.forum import TOKENS, forum_tokenizer
from r2m.training.shape import shape_of

TINY = {
    "vocab_size": 40, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "llama": [
        {}, {"num_key_value_heads": 2, "head_dim": 10, "tie_word_embeddings": True, "dtype": "bfloat16"},
        {"attention_bias": True, "mlp_bias": True, "num_labels": 1, "reward_mean": 0.5, "eos_token_id": [2, 3]},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
                             "high_freq_factor": 4.0, "original_max_position_embeddings": 32}},
    ],
    "mistral": [{"num_key_value_heads": 2}, {"num_key_value_heads": 4, "sliding_window": None, "num_labels": 1}],
    "qwen2": [{"num_key_value_heads": 2}, {"num_key_value_heads": 1, "tie_word_embeddings": True, "num_labels": 3}],
    "qwen3": [{"num_key_value_heads": 2, "head_dim": 8},
              {"num_key_value_heads": 4, "head_dim": 6, "attention_bias": True, "num_labels": 1}],
    "gpt_neox": [{}, {"attention_bias": False, "num_labels": 1}, {"tie_word_embeddings": True}],
}  # fmt: skip


def written(family: str, folder: Path, **settings: Any) -> dict[str, Any]:
    CONFIG_MAPPING[family](**settings).save_pretrained(folder)
    return dict(json.loads((folder / "config.json").read_text()))


def same(tree: dict[str, Any], folder: Path) -> bool:
    """Whether what is read of a config.json is what transformers makes of it; False where nothing is read."""
    plain = dense_config(tree)
    if plain is None:
        return False
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(tree))
    theirs = AutoConfig.from_pretrained(folder)
    for field in ("policy.model", "reward.model")[: 1 + (plain.num_labels == 1)]:
        assert shape_of(plain, field) == shape_of(theirs, field), json.dumps(tree)
    assert plain.num_labels == theirs.num_labels
    assert hasattr(plain, "reward_mean") == hasattr(theirs, "reward_mean")
    return True


@pytest.mark.parametrize("family", FAMILIES)
def test_tiny_models_and_those_of_the_size_that_a_family_takes_by_default(family: str, tmp_path: Path) -> None:
    trees = [written(family, tmp_path, **TINY | more) for more in VARIANTS[family]]
    trees.append(written(family, tmp_path))
    trees += [{**{key: trees[0][key] for key in NEEDED | FAMILIES[family].needed}, "model_type": family}]
    # As versions of transformers before the fifth wrote them.
    trees += [trees[0] | {"rope_parameters": None, "rope_theta": 5e5, "rope_scaling": None, "torch_dtype": "float16"}]
    for tree in trees:
        assert same(tree, tmp_path / "copy"), tree


@pytest.mark.parametrize("model", PUBLISHED)
def test_published_models(model: str, tmp_path: Path) -> None:
    assert same(PUBLISHED[model], tmp_path)
    assert config_for_planning(model, "policy.model").name_or_path == model


def test_the_forums_own() -> None:
    tokenizer = forum_tokenizer()
    assert len(tokenizer) == len(TOKENS)
    plain = dense_config({"model_type": "llama"} | forum_dimensions(64, len(TOKENS)))
    assert plain is not None
    assert shape_of(plain) == shape_of(new_policy(tokenizer, 64).config)


@pytest.mark.parametrize("family", FAMILIES)
def test_odd_values_are_left_to_transformers_or_change_nothing(family: str, tmp_path: Path) -> None:
    """Each key in turn."""
    tree = written(family, tmp_path, **TINY | VARIANTS[family][0])
    more = ("num_labels", "quantization_config", "layer_types", "rope_scaling", "auto_map", "reward_mean", "head_dim")
    odd: tuple[Any, ...] = (
        None, -1, 0, 1, 39, 10**9, 10**12, 1.5, math.nan, math.inf, True, False, "", "x", [], [1],
        {}, {"0": "a", "1": "b"}, {"1": "a"}, {"rope_type": "dynamic", "factor": 2.0}, {"rope_type": "llama3"},
        {"type": "linear", "factor": 2.0}, {"full_attention": {"rope_type": "default"}},
    )  # fmt: skip
    read = 0
    for key in (*tree, *more):
        for value in odd:
            if key in ("num_hidden_layers", "num_labels") and isinstance(value, int) and value > 10**6:
                continue  # transformers would make so many layers, or names
            changed = copy.deepcopy(tree) | {key: value}
            if math.inf in (value,) or value != value:
                assert dense_config(changed) is None
            else:
                read += same(changed, tmp_path / "copy")
    assert read > 20  # the usual values of what changes nothing are among them


@pytest.mark.parametrize(
    "tree",
    [None, [], {}, {"model_type": "llama"}, {"model_type": "mamba"} | TINY, {"model_type": ["llama"]} | TINY,
     {"model_type": "mistral"} | TINY, {"model_type": "qwen3", "num_key_value_heads": 4} | TINY,
     {"model_type": "llama", "a_key_of_next_year": 1} | TINY],
)  # fmt: skip
def test_what_is_not_certain(tree: Any) -> None:
    assert dense_config(tree) is None


def test_a_model_that_is_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("r2m.models.loading.hub_reachable", lambda: False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"^reward\.model = 'a/b': a Hugging Face folder .* hub cannot be reached$"):
        config_for_planning("a/b", "reward.model")
