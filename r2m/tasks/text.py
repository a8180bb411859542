"""Tasks made of data: prompts of a Hugging Face data set or a local file, without a gold reward."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from r2m.config import TextTask
from r2m.errors import UserError
from r2m.tasks.columns import UNUSABLE, place_in_file, prompts
from r2m.tasks.files import read_rows
from r2m.tasks.prompt import Prompt, conversation, located, prompt_ids
from r2m.tasks.task import LeftOut, Task, described

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_Item = TypeVar("_Item")


def text_task(section: TextTask, tokenizer: PreTrainedTokenizerBase | None = None) -> Task:
    """A task without a gold reward, from data; the last `held_out` rows are for evaluation.

    Raises UserError for unusable data, and ValueError for limits in tokens without a tokenizer to count them.
    """
    read = prompts(read_rows(section.data, section.split), section.prompt_column)
    left_out = read.left_out
    kept: list[Prompt] = []
    usable: Iterable[Prompt] = (shaped(prompt, section.instruction, section.as_chat) for prompt in read)
    if tokenizer is not None:
        usable = accepted(usable, left_out, tokenizer)
    for prompt in usable:
        if len(kept) == section.limit:
            break
        limit = _limit_exceeded(prompt, section, tokenizer)
        if limit is None:
            kept.append(prompt)
        else:
            left_out.add(limit, place_in_file(prompt))
    if len(kept) <= section.held_out:
        raise UserError(
            f"task.held_out = {section.held_out}: it must be less than the {len(kept)} usable rows of "
            f"{section.data!r}{f' ({left_out})' if left_out else ''}"
        )
    train, held_out = kept[: -section.held_out], kept[-section.held_out :]
    source = Path(section.data).name if Path(section.data).is_file() else section.data
    datasets = described(section.name, source, train, held_out)
    if left_out:
        datasets[0]["left_out"] = f"task.data = {section.data!r}: {left_out}"
    return Task(section.name, train, held_out, None, None, datasets, left_out)


def shaped(prompt: Prompt, instruction: str | None, as_chat: bool) -> Prompt:
    """A plain prompt with an instruction before it, or as a user's message, or both.

    Raises UserError for a conversation, which has an instruction's place and form already.
    """
    if instruction is None and not as_chat:
        return prompt
    if prompt.text is None:
        with located(prompt):
            raise UserError("instruction and as_chat are for plain prompts; this is a conversation already")
    text = prompt.text if instruction is None else f"{instruction}\n\n{prompt.text}"
    if as_chat:
        return replace(prompt, text=None, messages=({"role": "user", "content": text},))
    return replace(prompt, text=text)


def accepted(items: Iterable[_Item], left_out: LeftOut, tokenizer: PreTrainedTokenizerBase) -> Iterator[_Item]:
    """Prompts, or tuples that begin with one, whose conversation the tokenizer's chat template takes; the others are
    left out, as unusable rows are.

    Raises UserError, the first refusal with its file and row, where they are more than a tenth of the rows.
    """
    refusals: list[UserError] = []
    for item in items:
        prompt: Any = item[0] if isinstance(item, tuple) else item
        try:
            if prompt.messages is not None:
                conversation(prompt, tokenizer)
        except UserError as error:
            refusals.append(error)
            said = str(error).removeprefix(f"{prompt.origin}: ")
            left_out.add("a chat template refuses it", f"{place_in_file(prompt)}: {said}")
            if len(refusals) > UNUSABLE * left_out.rows:
                raise refusals[0] from None
        else:
            yield item


def _limit_exceeded(prompt: Prompt, section: TextTask, tokenizer: PreTrainedTokenizerBase | None) -> str | None:
    """The setting by which a row is left out, if any; or that a policy would have nothing to go on from."""
    if tokenizer is not None and prompt.text is not None and not prompt_ids(prompt, tokenizer):
        return "the tokenizer makes no token of it"
    if section.max_prompt_tokens is None and section.max_chosen_tokens is None:
        return None
    if tokenizer is None:
        raise ValueError("tokenizer = None: limits in tokens need the policy's tokenizer")
    if section.max_chosen_tokens is not None:
        if prompt.reference is None:
            raise UserError(
                f"task.max_chosen_tokens = {section.max_chosen_tokens}: {section.data!r} has neither chosen nor "
                "completion"
            )
        chosen = tokenizer(prompt.reference, add_special_tokens=False)["input_ids"]
        if len(chosen) > section.max_chosen_tokens:
            return "max_chosen_tokens"
    if section.max_prompt_tokens is not None and len(prompt_ids(prompt, tokenizer)) > section.max_prompt_tokens:
        return "max_prompt_tokens"
    return None
