"""The models that a run starts from: named in its config, or the forum's own, trained once and kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from r2m.config import Config, ForumTask, as_before, digest
from r2m.config.paths import named_members
from r2m.files import locked
from r2m.models.dimensions import FORUM_WIDTH
from r2m.stages.cache import FINISHED, cached
from r2m.stages.progress import Progress, silent
from r2m.tasks.pairs import PAIRS

CACHE_VERSION = 2  # of the forum's recipe; raise it when grammar, models or training change

SFT_SETTINGS = ("seed", "posts", "sft_noise", "sft_steps")
REWARD_SETTINGS = (
    "label_noise", "artefact", "space_pairs", "preference_pairs", "reward_epochs", "reward_width", "rrm",
    "odin",
)  # fmt: skip


class Models(NamedTuple):
    """Hub ids or folders."""

    policy: str
    reward: str


def prepare(config: Config, progress: Progress = silent) -> Models:
    """Models for a run: `policy.model` and `reward.model` where they are named, else the task's own, an ensemble's
    further reward models with them."""
    policy, reward = config.policy.model, config.reward.model
    if policy is not None and reward is not None:
        return Models(policy, reward)
    task = config.task
    assert isinstance(task, ForumTask), "a text task's config names both models"
    cache = Path(config.run.storage).absolute() / "cache"
    sft, reward_model = (cache / name for name in model_names(task))

    def train_base(folder: Path, width: int = FORUM_WIDTH) -> None:
        from r2m.stages.forum import train_sft

        train_sft(task, folder, progress, width)

    cached(sft, train_base)
    if reward is None:
        width = task.reward_width
        base = sft if width == FORUM_WIDTH else sft.with_name(f"{sft.name}-width-{width}")

        def build(folder: Path) -> None:
            from r2m.stages.forum import train_reward

            cached(base, lambda folder: train_base(folder, width))
            train_reward(task, sft, base, folder, progress)

        cached(reward_model, build)
        if config.reward.anchor and config.reward.anchor_data is None and not (reward_model / PAIRS).is_file():
            from r2m.stages.forum import keep_pairs

            with locked(reward_model.with_name(reward_model.name + ".lock")):
                keep_pairs(task, sft, reward_model, progress)
        members = [Path(member) for member in member_models(config)]
        if not all((member / FINISHED).is_file() for member in members):
            from r2m.stages.members import train_members

            train_members(config, sft, members, progress)
        if config.reward.uncertainty:

            def see(folder: Path) -> None:
                from r2m.stages.features import train_features

                train_features(task, sft, reward_model, folder, progress)

            cached(Path(str(features_folder(config))), see)
    return Models(policy or str(sft), reward or str(reward_model))


def model_names(task: ForumTask) -> tuple[str, str]:
    """Names of the supervised policy and of the reward model: of exactly the settings that determine them."""
    of_sft = {"version": CACHE_VERSION} | determining(task, SFT_SETTINGS)
    of_reward = of_sft | determining(task, REWARD_SETTINGS)
    return f"forum-sft-{digest(of_sft)}", f"forum-reward-{digest(of_reward)}"


def member_models(config: Config) -> tuple[str, ...]:
    """An ensemble's reward models beside the run's own, hub ids or folders: those that are named, or the task's,
    named by exactly what determines them."""
    r, task = config.reward, config.task
    if r.ensemble == "none" or not isinstance(r.members, int):
        return named_members(config)
    assert isinstance(task, ForumTask), "Config has seen to it"
    own = {"of": model_names(task)[1], "differ": r.members_differ}
    cache = Path(config.run.storage).absolute() / "cache"
    return tuple(str(cache / f"forum-member-{digest(own | {'member': i})}") for i in range(1, r.members))


def features_folder(config: Config) -> str | None:
    """Where the training features of the task's own reward model are; None where a model is named: it has its own."""
    task = config.task
    if config.reward.model is not None or not isinstance(task, ForumTask):
        return None
    own = digest({"of": model_names(task)[1]})
    return str(Path(config.run.storage).absolute() / "cache" / f"forum-features-{own}")


def determining(task: ForumTask, settings: Sequence[str]) -> dict[str, Any]:
    """Those of the settings that change a model: the newer ones where they do something."""
    return {key: value for key, value in as_before("task", task.model_dump()).items() if key in settings}
