"""Finished runs of tiny models, once for all tests here: "r2m", "untrained", "rloo" and "sft" in one storage."""

import shutil
from pathlib import Path

import pytest

from r2m.config import Config, load
from r2m.training.loop import run_loop
from r2m.training.start import new_run

SMALL = (
    "task.posts=40", "task.held_out=12", "algorithm.queries=4", "algorithm.rounds=4", "algorithm.microbatch=8",
    "algorithm.sample_batch=8", "algorithm.max_response_tokens=8", "algorithm.temperature=0.8",
    "algorithm.lr=1e-3", "reward.lr=3e-2", "reward.attention_width=16", "reward.num_heads=2", "run.device=cpu",
    "run.eval_every=2", "run.eval_queries=6", "run.checkpoint_every=2", "run.seed=3", "reward.omega_min=0.25",
)  # fmt: skip
ARMS = {
    "r2m": (),
    "untrained": ("reward.train_head=off",),
    "rloo": ("reward.feedback=off",),
    "sft": ("reward.feedback=off", "algorithm.epochs=0"),
}


@pytest.fixture(scope="session")
def finished(forum_models: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    policy, reward = forum_models
    storage = tmp_path_factory.mktemp("finished")
    own = (f"policy.model={policy}", f"reward.model={reward}", f"run.storage={storage}")
    for name, settings in ARMS.items():
        run = new_run(load("forum", [*own, *SMALL, *settings]), name)
        run_loop(run.config, run.folder, run.models)
    return storage


@pytest.fixture
def storage(finished: Path, tmp_path: Path) -> str:
    """A copy to write in."""
    shutil.copytree(finished, tmp_path / "runs-here")
    return str(tmp_path / "runs-here")


@pytest.fixture
def config(forum_models: tuple[str, str], tmp_path: Path) -> Config:
    """The configuration of the run "r2m"."""
    policy, reward = forum_models
    return load("forum", [f"policy.model={policy}", f"reward.model={reward}", *SMALL])
