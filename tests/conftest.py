"""A forum of tiny random models, so that whole rounds run in milliseconds.

Their weights are random but for what makes the policy's end token likely: about half of the responses of eight
tokens end, at all lengths.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from r2m.cli import main
from r2m.config import Config, load
from r2m.models.saving import save_model
from r2m.tasks.forum import forum_tokenizer, write_prompts
from r2m.tasks.pairs import write_pairs
from r2m.training.trainer import Trainer
from r2m.workers import Workers

if TYPE_CHECKING:
    from r2m.sweeps.sweep import Opened

Command = Callable[..., tuple[int, str, str]]
MakeConfig = Callable[..., Config]
MakeTrainer = Callable[..., Trainer]
TextRecipe = Callable[..., str]
SweepFile = Callable[..., str]
MakeSweep = Callable[..., "Opened"]

END_WEIGHT = 4.5

# lr and adam_eps: a round moves the weights by 1e-3 or so, and Adam's division does not blow gradients that are
# rounding errors up to full steps.
TINY = (
    "task.posts=40", "task.held_out=8", "algorithm.queries=4", "algorithm.rounds=4", "algorithm.microbatch=8",
    "algorithm.sample_batch=8", "algorithm.max_response_tokens=8", "algorithm.temperature=0.8",
    "algorithm.lr=1e-3", "algorithm.adam_eps=1e-4", "reward.lr=1e-3", "reward.attention_width=16",
    "reward.num_heads=2", "run.device=cpu", "run.eval_every=2", "run.eval_queries=8",
    "run.checkpoint_every=2", "run.sample_every=2",
)  # fmt: skip

SPACE: dict[str, Any] = {
    "reward.alpha": {"uniform": [0, 1]},
    "reward.omega_min": {"uniform": [0.2, 0.9]},
    "reward.lr": {"loguniform": [1e-4, 1e-2]},
    "algorithm.responses": {"int": [3, 4]},
    "algorithm.lr": {"loguniform": [1e-4, 1e-2]},
}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Sums then have one order, and small models are no slower for it."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def forum_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folders of a policy and a reward model, Llamas of width 32 and 16 under the forum's tokenizer."""
    tokenizer = forum_tokenizer()
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    shared = {
        "vocab_size": len(tokenizer), "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 64, "bos_token_id": None, "initializer_range": 0.3, **special,
    }  # fmt: skip
    torch.manual_seed(0)
    policy = LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=64, attention_dropout=0.3, **shared))
    policy.generation_config = GenerationConfig(**special)
    with torch.no_grad():  # component 0 is the same at every token, and what the end token's logit is made of
        policy.model.embed_tokens.weight[:, 0] = 3.0
        for layer in policy.model.layers:
            layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0.0
        policy.lm_head.weight[tokenizer.eos_token_id] = 0.0
        policy.lm_head.weight[tokenizer.eos_token_id, 0] = END_WEIGHT
    reward = LlamaForSequenceClassification(LlamaConfig(hidden_size=16, intermediate_size=32, num_labels=1, **shared))
    reward.config.reward_mean, reward.config.reward_seen = 0.1, 0.2
    folders = tmp_path_factory.mktemp("policy"), tmp_path_factory.mktemp("reward")
    for folder, model in zip(folders, (policy, reward), strict=True):
        save_model(folder, model, tokenizer)
    asked = write_prompts(0, "preferences", 8)
    write_pairs(folders[1], [(prompt, " my tv", " sad" * (1 + i)) for i, prompt in enumerate(asked)])  # one too long
    return str(folders[0]), str(folders[1])


@pytest.fixture
def make_config(forum_models: tuple[str, str], tmp_path: Path) -> MakeConfig:
    """Makes a configuration of the forum with the tiny models, its storage in tmp_path."""

    def make(*overrides: str) -> Config:
        policy, reward = forum_models
        own = (f"policy.model={policy}", f"reward.model={reward}", f"run.storage={tmp_path / 'storage'}")
        return load("forum", [*own, *TINY, *overrides])

    return make


@pytest.fixture
def make_trainer(make_config: MakeConfig, forum_models: tuple[str, str]) -> MakeTrainer:
    def make(*overrides: str, workers: Workers = Workers()) -> Trainer:  # noqa: B008
        return Trainer(make_config(*overrides), forum_models, workers)

    return make


@pytest.fixture
def text_recipe(forum_models: tuple[str, str], tmp_path: Path) -> TextRecipe:
    """Makes a recipe file of a text task with the tiny models and the given rows of prompts, if any."""
    policy, reward = forum_models

    def make(rows: Sequence[dict[str, Any]] | None = None, **task: Any) -> str:
        if rows is not None:
            task["data"] = str(tmp_path / "data.jsonl")
            Path(task["data"]).write_text("".join(json.dumps(row) + "\n" for row in rows))
        tree = {
            "task": {"kind": "text", "held_out": 2} | task,
            "policy": {"model": policy},
            "reward": {"model": reward, "attention_width": 16, "num_heads": 2},
            "algorithm": {"rounds": 2, "queries": 4, "max_response_tokens": 8},
            "run": {"device": "cpu", "storage": str(tmp_path / "storage")},
        }
        (tmp_path / "text.yaml").write_text(yaml.safe_dump(tree))
        return str(tmp_path / "text.yaml")

    return make


@pytest.fixture
def sweep_file(make_config: MakeConfig, tmp_path: Path) -> SweepFile:
    """Writes a sweep file over α, Ω, K and both learning rates, with the tiny models; `sections` replace its own."""

    def make(*overrides: str, **sections: Any) -> str:
        recipe = tmp_path / "tiny.yaml"
        recipe.write_text(yaml.safe_dump(make_config("run.max_failures=8", *overrides).model_dump(mode="json")))
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
def make_sweep(sweep_file: SweepFile, tmp_path: Path) -> MakeSweep:
    """Makes a sweep of such a file, in the storage of make_config."""
    from r2m.sweeps.sweep import new_sweep  # takes seconds, and most tests need none

    def make(
        *overrides: str,
        name: str = "tiny",
        workers: int | None = None,
        tracking_uri: str | None = None,
        **sections: Any,
    ) -> "Opened":
        file = sweep_file(*overrides, **sections)
        return new_sweep(file, name, str(tmp_path / "storage"), workers, tracking_uri)

    return make


@pytest.fixture
def r2m(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line: exit code, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["r2m", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB of its own; unmounted at the end."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture
def read_only(small_disk: Path) -> tuple[Path, Callable[[], None]]:
    """A small file system, and what makes it one that can only be read: root may write anywhere else."""
    return small_disk, lambda: subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
