"""What a run needs to know of a task: its prompts, and its own measure of success where it has one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from r2m.config import digest
from r2m.tasks.prompt import Prompt


class LeftOut(dict[str, int]):
    """How many rows are not used, by reason; `first` says where the first one of each is, and what it has."""

    def __init__(self, rows: int = 0) -> None:
        super().__init__()
        self.rows = rows  # in all
        self.first: dict[str, str] = {}

    def add(self, reason: str, example: str) -> None:
        self[reason] = self.get(reason, 0) + 1
        self.first.setdefault(reason, example)

    def tree(self) -> dict[str, dict[str, int | str]]:
        """For a report: reason -> rows, and the first of them."""
        return {reason: {"rows": rows, "first": self.first[reason]} for reason, rows in self.items()}

    def __str__(self) -> str:
        """One line, without an end."""
        parts = (f"{rows:,}: {reason} (first: {self.first[reason]})" for reason, rows in self.items())
        return f"{sum(self.values()):,} of {self.rows:,} rows left out: {'; '.join(parts)}"


@dataclass(frozen=True)
class Task:
    """Prompts, and programs that judge responses.

    A response reaches `gold` and `measures` as text decoded without special tokens, its spaces exactly as
    generated (`clean_up_tokenization_spaces` off).
    """

    name: str
    train: Sequence[Prompt]
    held_out: Sequence[Prompt]  # for evaluation: never trained on
    gold: Callable[[Sequence[Prompt], Sequence[str]], list[float]] | None  # the reward that proxies stand for
    measures: Callable[[Sequence[Prompt], Sequence[str]], dict[str, float]] | None  # means over the responses
    datasets: list[dict[str, Any]]  # name, digest, source, rows, split of each
    left_out: LeftOut = field(default_factory=LeftOut)  # rows not used, by reason


def described(name: str, source: str, train: Sequence[Prompt], held_out: Sequence[Prompt]) -> list[dict[str, Any]]:
    """`Task.datasets` of a task's splits. The digest is of what the prompts are, not of where they are from."""
    return [
        {"name": f"{name}-{split}", "digest": digest([_content(prompt) for prompt in prompts]), "source": source,
         "rows": len(prompts), "split": split}
        for split, prompts in (("train", train), ("held-out", held_out))
    ]  # fmt: skip


def _content(prompt: Prompt) -> list[Any]:
    template = [] if prompt.template is None else [prompt.template]
    return [prompt.text, prompt.messages, prompt.reference, *template]
