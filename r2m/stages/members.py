"""An ensemble's further reward models on the embedded task: all on the same pairs, trained side by side.

They differ from the task's own reward model in one thing: the order of the pairs and the tenth that is held out
(`data`), the score layer's first weights (`init`), or the language model that they start from (`sft`), fine-tuned
from other weights in another order.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from r2m.config import Config, ForumTask
from r2m.models.dimensions import FORUM_WIDTH
from r2m.stages.cache import cached
from r2m.stages.forum import Preferences, fit_reward, preferences, train_sft
from r2m.stages.progress import Progress, silent
from r2m.stages.side_by_side import side_by_side


def train_members(config: Config, sft: Path, members: Sequence[Path], progress: Progress) -> None:
    """Those of `members`, numbered from 1, that are not there; the supervised policy `sft` writes their pairs."""
    task = config.task
    assert isinstance(task, ForumTask)
    data = preferences(task, sft, progress)
    differ = config.reward.members_differ
    calls = [(task, data, differ, i, sft, folder) for i, folder in enumerate(members, 1)]
    for done, _ in enumerate(side_by_side(train_member, calls), 1):
        progress("members of the ensemble", done, len(calls))


def train_member(task: ForumTask, data: Preferences, differ: str, member: int, sft: Path, folder: Path) -> None:
    seed = member_seed(task.seed, member)
    width = task.reward_width
    base = sft if width == FORUM_WIDTH else sft.with_name(f"{sft.name}-width-{width}")
    if differ == "sft":
        base = sft.with_name(f"{base.name}-start-{member}")
        cached(base, lambda folder: train_sft(task, folder, silent, width, seed))
    order, init = (seed if differ == what else None for what in ("data", "init"))
    cached(folder, lambda folder: fit_reward(task, data, base, folder, silent, order, init))


def member_seed(seed: int, member: int) -> int:
    """Of 32 bits, another for each member of each task seed."""
    return int.from_bytes(hashlib.sha256(f"member {member} of {seed}".encode()).digest()[:4])
