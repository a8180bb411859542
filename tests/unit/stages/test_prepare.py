"""The cache of the forum's models, on a forum shrunk to seconds."""

import hashlib
import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch

from r2m.config import Config, ForumTask, digest, load
from r2m.models.loading import load_tokenizer
from r2m.policy.loading import load_policy
from r2m.policy.queries import same_tokens
from r2m.reward.features import load_precision
from r2m.reward.loading import load_reward_model
from r2m.stages.cache import FINISHED, cached
from r2m.stages.forum import preferences
from r2m.stages.members import train_member
from r2m.stages.prepare import CACHE_VERSION, features_folder, member_models, model_names, prepare
from r2m.stages.progress import silent
from r2m.tasks.pairs import PAIRS

SHRUNK = ("posts=40", "sft_steps=2", "preference_pairs=50", "reward_epochs=1")


def shrunk(storage: Path, *overrides: str) -> Config:
    return load("forum", [f"run.storage={storage}", *(f"task.{dial}" for dial in SHRUNK), *overrides])


def weights(folder: str) -> str:
    return hashlib.sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest()


def report(folder: str) -> Any:
    return json.loads((Path(folder) / "report.json").read_text())


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def prepared(storage: Path) -> Any:
    return prepare(shrunk(storage))


def test_the_models_load_and_speak_the_same_tokens(prepared: Any) -> None:
    policy, (reward, head) = load_policy(prepared.policy), load_reward_model(prepared.reward)
    assert policy.config.vocab_size == reward.model.config.vocab_size
    assert head is None
    assert same_tokens(load_tokenizer(prepared.policy), load_tokenizer(prepared.reward))
    assert report(prepared.policy)["steps"] == 2
    assert report(prepared.reward)["reward_mean_of"] == "SFT samples"


def test_the_reward_model_starts_from_the_supervised_policy(prepared: Any) -> None:
    policy, (reward, _) = load_policy(prepared.policy), load_reward_model(prepared.reward)
    distance = (
        (policy.get_input_embeddings().weight - reward.model.get_input_embeddings().weight).abs().max().detach()
    )
    assert 0 < float(distance) < 0.01  # 4 steps of 5e-4 at most


def test_a_reward_model_of_another_width(prepared: Any, storage: Path) -> None:
    """It starts from a language model of its own width, and judges the same policy's responses."""
    wide = prepare(shrunk(storage, "task.reward_width=64"))
    assert wide.policy == prepared.policy
    assert wide.reward != prepared.reward
    assert load_reward_model(wide.reward)[0].width == 64
    base = load_policy(f"{wide.policy}-width-64")
    assert base.config.hidden_size == 64
    again = prepare(shrunk(storage, "task.reward_width=64"))
    assert again == wide


def test_a_second_run_trains_nothing(prepared: Any, storage: Path) -> None:
    calls: list[Any] = []
    # Its settings differ in what does not go into the models.
    config = shrunk(storage, "run.seed=7", "algorithm.lr=1e-5", "task.held_out=3", "reward.feedback=false")
    assert prepare(config, lambda *call: calls.append(call)) == prepared
    assert calls == []


def test_same_settings_same_bytes(prepared: Any, tmp_path: Path) -> None:
    torch.manual_seed(123)  # the caller's own draws play no part in it
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    again = prepare(shrunk(tmp_path))
    assert (weights(again.policy), weights(again.reward)) == (weights(prepared.policy), weights(prepared.reward))
    for ours, theirs in zip(again, prepared, strict=True):
        assert report(ours) == report(theirs)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


CHANGED = {
    "seed": 1, "posts": 41, "sft_noise": 0.9, "sft_steps": 3, "label_noise": 0.5, "artefact": 0.5,
    "space_pairs": 0.5, "preference_pairs": 51, "reward_epochs": 5, "held_out": 3, "reward_width": 64,
    "rrm": 0.1, "odin": "length",
}  # fmt: skip


def test_every_dial_is_in_the_names_of_the_models_that_it_changes() -> None:
    sft, reward = model_names(ForumTask())
    changed = {}
    for dial, value in CHANGED.items():
        other_sft, other_reward = model_names(ForumTask(**{dial: value}))
        changed[dial] = (other_sft != sft, other_reward != reward)
    assert set(changed) == set(ForumTask.model_fields) - {"kind"}
    assert changed == {
        **dict.fromkeys(("seed", "posts", "sft_noise", "sft_steps"), (True, True)),
        **dict.fromkeys(
            (
                "label_noise",
                "artefact",
                "space_pairs",
                "preference_pairs",
                "reward_epochs",
                "reward_width",
                "rrm",
                "odin",
            ),
            (False, True),
        ),
        "held_out": (False, False),
    }


def test_what_a_newer_dial_does_not_change_is_called_as_before() -> None:
    of_sft = {"version": CACHE_VERSION, "seed": 0, "posts": 4000, "sft_noise": 0.3, "sft_steps": 300}
    of_reward = of_sft | {
        "label_noise": 0.05, "artefact": 0.25, "space_pairs": 0.0, "preference_pairs": 7400, "reward_epochs": 1,
        "reward_width": 128,
    }  # fmt: skip
    assert model_names(ForumTask()) == (f"forum-sft-{digest(of_sft)}", f"forum-reward-{digest(of_reward)}")


def test_a_reward_model_of_mixed_pairs(prepared: Any, storage: Path) -> None:
    mixed = prepare(shrunk(storage, "task.rrm=0.5"))
    assert mixed.policy == prepared.policy
    assert report(mixed.reward)["mixed"] + report(mixed.reward)["mixed_left_out"] == 7 * report(mixed.reward)["rows"]


def test_pairs_are_kept_beside_the_reward_model_or_made_again(prepared: Any, storage: Path) -> None:
    kept = Path(prepared.reward) / PAIRS
    first = kept.read_text()
    assert len(first.splitlines()) == report(prepared.reward)["rows"] + report(prepared.reward)["held_out_rows"]
    before = weights(prepared.reward)
    kept.unlink()  # as of a model of before
    assert prepare(shrunk(storage)) == prepared
    assert not kept.exists()
    assert prepare(shrunk(storage, "reward.anchor=0.5")) == prepared
    assert kept.read_text() == first
    assert weights(prepared.reward) == before


def test_members_of_an_ensemble_are_trained_on_the_same_pairs(prepared: Any, storage: Path) -> None:
    """Each differs from the task's own reward model in one thing."""
    config = shrunk(storage, "reward.feedback=off", "reward.ensemble=uwo", "reward.members=2")
    assert prepare(config) == prepared  # in a process of its own
    (member,) = member_models(config)
    own, other = (load_reward_model(folder)[0].state_dict() for folder in (prepared.reward, member))
    assert not torch.equal(own["phi.weight"], other["phi.weight"])
    task = config.task
    assert isinstance(task, ForumTask)
    data = preferences(task, Path(prepared.policy), silent)
    scores = {weights(member), weights(prepared.reward)}
    for differ in ("init", "data", "sft"):
        train_member(task, data, differ, 1, Path(prepared.policy), storage / differ)
        assert report(str(storage / differ))["rows"] == report(prepared.reward)["rows"]
        scores.add(weights(str(storage / differ)))
    assert weights(str(storage / "init")) == weights(member)
    assert len(scores) == 4
    assert (storage / "cache" / f"{Path(prepared.policy).name}-start-1" / FINISHED).is_file()
    calls: list[Any] = []
    prepare(config, lambda *call: calls.append(call))
    assert calls == []


def test_training_features_are_kept_apart_from_the_reward_model(prepared: Any, storage: Path) -> None:
    config = shrunk(storage, "reward.uncertainty=1")
    before = sorted(path.name for path in Path(prepared.reward).iterdir())
    assert prepare(config) == prepared
    assert sorted(path.name for path in Path(prepared.reward).iterdir()) == before
    folder = features_folder(config)
    assert folder is not None
    assert (Path(folder) / FINISHED).is_file()
    assert load_precision(Path(folder), 128, "cpu").shape == (128, 128)
    assert features_folder(shrunk(storage, "task.artefact=0.5")) != folder
    assert features_folder(shrunk(storage, "run.seed=3", "reward.uncertainty_form=advpo")) == folder


def test_a_named_model_comes_before_the_tasks_own(prepared: Any, storage: Path, tmp_path: Path) -> None:
    both = prepare(shrunk(tmp_path, "policy.model=a", "reward.model=b"))
    assert both == ("a", "b")
    assert list(tmp_path.iterdir()) == []
    mine = prepare(shrunk(storage, "policy.model=a"))
    assert mine == ("a", prepared.reward)
    mine = prepare(shrunk(storage, "reward.model=b"))
    assert mine == (prepared.policy, "b")


def build(folder: Path) -> None:
    """Stands for a training: leaves a line in the log beside the cache, and takes its time."""
    with open(folder.parent / "log", "a") as log:
        log.write("built\n")
    torch.randn(2000, 500) @ torch.randn(500, 2000)
    (folder / "report.json").write_text("{}")


def test_a_half_written_model_is_made_again(tmp_path: Path) -> None:
    model = tmp_path / "model"
    cached(model, build)
    cached(model, build)
    assert (tmp_path / "log").read_text() == "built\n"
    (model / FINISHED).unlink()  # as a copy that broke off would leave it
    partial = tmp_path / "model.partial"  # as a process that was killed would
    partial.mkdir()
    (partial / "junk").touch()
    cached(model, build)
    assert (tmp_path / "log").read_text() == "built\n" * 2
    assert not (model / "junk").exists()


def test_a_failure_is_not_kept(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        build(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cached(tmp_path / "model", fail)
    assert not (tmp_path / "model").exists()
    cached(tmp_path / "model", build)
    assert (tmp_path / "log").read_text() == "built\n" * 2


def test_processes_that_start_together_train_once(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=cached, args=(tmp_path / "model", build)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert (tmp_path / "log").read_text() == "built\n"
