"""Folders of adapters: where their model is, and what is refused of them before anything is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from r2m.errors import UserError
from r2m.models.adapters import chain
from r2m.models.loading import load_config, load_tokenizer
from r2m.models.weights import check_weights
from r2m.policy.loading import load_policy
from r2m.reward.loading import load_reward_model
from r2m.tasks.forum import forum_tokenizer

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(forum_models: tuple[str, str], tmp_path: Path) -> Path:
    """As others write them: peft's own file, no tokenizer."""
    model = LlamaForCausalLM.from_pretrained(forum_models[0])
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(
        tmp_path / "adapters"
    )
    return tmp_path / "adapters"


def edit(folder: Path, **settings: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


class TestOpened:
    def test_what_it_lacks_is_its_model_s(self, folder: Path, forum_models: tuple[str, str]) -> None:
        assert chain(str(folder), "policy.model") == [forum_models[0], str(folder)]
        assert load_config(str(folder)).hidden_size == 32
        assert load_tokenizer(str(folder))("my tv").input_ids == forum_tokenizer()("my tv").input_ids
        assert load_policy(str(folder)).name_or_path == str(folder)

    def test_its_own_tokenizer_comes_first(self, folder: Path) -> None:
        tokenizer = forum_tokenizer()
        tokenizer.model_max_length = 77
        tokenizer.save_pretrained(folder)
        assert load_tokenizer(str(folder)).model_max_length == 77

    def test_a_whole_model_has_nothing_below_it(self, forum_models: tuple[str, str]) -> None:
        assert chain(forum_models[0], "policy.model") == [forum_models[0]]
        assert chain("some/id", "policy.model") == ["some/id"]


class TestRefused:
    @pytest.mark.parametrize(
        ("settings", "why"),
        [
            ({"peft_type": "PREFIX_TUNING"}, "adapters of peft_type = 'LORA' without Megatron are allowed, not 'PRE"),
            ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "adapters of peft_type = 'LORA' without Megatron"),
            ({"base_model_name_or_path": "/gone"}, "the model that its adapters are to, '/gone', is not there; ba"),
            ({"base_model_name_or_path": None}, "the model that its adapters are to, None, is not there"),
            ({"base_model_name_or_path": "gone/model"}, "a Hugging Face folder or hub id is needed; no such folder"),
        ],
    )
    @pytest.mark.parametrize("reader", [load_config, load_tokenizer, load_policy])
    def test_in_one_line(
        self, folder: Path, settings: dict[str, Any], why: str, reader: Callable[[str], Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr("r2m.models.loading.hub_reachable", lambda: False)
        edit(folder, **settings)
        with pytest.raises(UserError, match=r"^policy.model = ") as error:
            reader(str(folder))
        assert why in str(error.value)

    @pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 10**5])
    def test_a_damaged_file(self, folder: Path, text: str) -> None:
        (folder / "adapter_config.json").write_text(text)
        with pytest.raises(UserError, match=r"its adapter_config.json is damaged, or names no base_model"):
            check_weights(str(folder), "policy.model")

    def test_a_circle(self, folder: Path) -> None:
        edit(folder, base_model_name_or_path=str(folder))
        with pytest.raises(UserError, match=r"its adapters are to a model that is made of them"):
            load_policy(str(folder))

    def test_a_model_and_adapters_in_one_folder(self, folder: Path) -> None:
        LlamaConfig().save_pretrained(folder)
        with pytest.raises(UserError, match=r"it holds both a whole model \(config.json\) and adapters"):
            load_policy(str(folder))

    def test_pickles(self, folder: Path) -> None:
        (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
        with pytest.raises(UserError, match=r"pickles \(adapter_model.bin\).*adapter_model.safetensors is needed"):
            load_policy(str(folder))

    @pytest.mark.parametrize("at_fault", ["adapters", "model"])
    def test_weights_cut_short(
        self, folder: Path, forum_models: tuple[str, str], tmp_path: Path, at_fault: str
    ) -> None:
        """Its own, and those of the model below."""
        shutil.copytree(forum_models[0], tmp_path / "model")
        edit(folder, base_model_name_or_path=str(tmp_path / "model"))
        check_weights(str(folder), "policy.model")
        (path,) = (tmp_path / at_fault).glob("*.safetensors")
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(UserError, match=rf"{path.name} is damaged, or cut short"):
            check_weights(str(folder), "policy.model")

    def test_a_reward_model_is_whole(self, folder: Path, forum_models: tuple[str, str]) -> None:
        edit(folder, base_model_name_or_path=forum_models[1])
        with pytest.raises(
            UserError, match=r"^reward.model = .*: it holds adapters \(adapter_config.json\); a whole"
        ):
            load_reward_model(str(folder))


class TestMerge:
    def test_one_ordinary_folder(self, r2m: Command, folder: Path, tmp_path: Path) -> None:
        code, out, _ = r2m("models", "merge", str(folder), "--out", str(tmp_path / "merged"))
        assert code == 0
        assert f"written: {tmp_path / 'merged'}" in out
        merged = LlamaForCausalLM.from_pretrained(tmp_path / "merged")
        for (name, ours), (_, opened) in zip(
            merged.named_parameters(), load_policy(str(folder)).named_parameters(), strict=True
        ):
            assert ours.equal(opened), name

    def test_what_is_no_adapters(self, r2m: Command, forum_models: tuple[str, str], tmp_path: Path) -> None:
        code, _, err = r2m("models", "merge", forum_models[0], "--out", str(tmp_path / "merged"))
        assert code == 2
        assert err.strip().endswith("a folder with adapter_config.json is needed")
        assert err.count("\n") == 1
        assert not (tmp_path / "merged").exists()
