"""The task that a config names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from r2m.config import ForumTask, TextTask
from r2m.tasks.forum import forum_task
from r2m.tasks.task import Task
from r2m.tasks.text import text_task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_task(section: ForumTask | TextTask, tokenizer: PreTrainedTokenizerBase | None = None) -> Task:
    """The task of a config's `task` section. `tokenizer`, the policy's, is what limits in tokens go by.

    Raises UserError for data that cannot be read, and ValueError for such limits without a tokenizer.
    """
    return forum_task(section) if section.kind == "forum" else text_task(section, tokenizer)
