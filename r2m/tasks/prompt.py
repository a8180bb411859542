"""A query as a task states it, and the tokens that a policy is given for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateError

from r2m.errors import UserError, brief
from r2m.tasks.messages import without_nulls

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Prompt:
    """Either plain text or a conversation whose last message is not the assistant's; one of the two."""

    text: str | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    reference: str | None = None  # a good response, where the task knows one
    template: dict[str, Any] | None = None  # given to the chat template beside the messages: tools and such
    origin: str | None = field(default=None, compare=False, repr=False)  # file and row, for what is said of it

    def __post_init__(self) -> None:
        if (self.text is None) == (self.messages is None):
            raise ValueError(f"text = {self.text!r}, messages = {self.messages!r}: give one of the two")

    @property
    def shown(self) -> str | list[dict[str, Any]]:
        """As journals and pages have it."""
        return self.text if self.text is not None else list(self.messages or ())

    @classmethod
    def of(cls, shown: str | Sequence[dict[str, Any]]) -> Prompt:
        """One that is `shown` so."""
        return cls(text=shown) if isinstance(shown, str) else cls(messages=tuple(shown))


def as_judges_read(prompt: Prompt) -> str:
    """A prompt as a judge reads it: plain text, the one message of a conversation, or all with their roles."""
    if prompt.text is not None:
        return prompt.text
    messages = prompt.messages or ()
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


@contextmanager
def located(prompt: Prompt) -> Iterator[None]:
    """A UserError from within names the prompt's file and row first."""
    try:
        yield
    except UserError as error:
        if prompt.origin is None or str(error).startswith(prompt.origin):
            raise
        raise UserError(f"{prompt.origin}: {error}") from None


def prompt_ids(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a prompt, up to where the response begins: never with an end token of its own, or two BOS.

    A conversation goes through the tokenizer's chat template, up to the header of the assistant's answer;
    plain text gets what the tokenizer puts in front of any text, such as a BOS.

    Raises UserError as `conversation` does.
    """
    if prompt.messages is not None:
        return template_ids(conversation(prompt, tokenizer), tokenizer)
    ids = tokenizer(prompt.text)["input_ids"]
    return _one_bos(ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids, tokenizer)


def conversation(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, answer: str | None = None) -> str:
    """A conversation as the tokenizer's chat template writes it: whole with its answer, or, without one, up to the
    header of the assistant's answer.

    Raises UserError, with the prompt's file and row, where the tokenizer has no chat template, and where its template
    refuses the conversation.
    """
    messages: list[dict[str, Any]] = without_nulls(
        [*(prompt.messages or ()), *([] if answer is None else [{"role": "assistant", "content": answer}])]
    )
    options = prompt.template or {}
    name = tokenizer.name_or_path

    def written(messages: list[dict[str, Any]], options: dict[str, Any]) -> str:
        own: dict[str, Any] = {"add_generation_prompt": answer is None, "tokenize": False}
        try:  # the template is a program of others
            return str(tokenizer.apply_chat_template(messages, **options, **own))
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise UserError(f"the chat template of {name!r} refuses it ({brief(error)})") from None

    with located(prompt):
        if tokenizer.chat_template is None:
            raise UserError(f"{name!r}: its tokenizer has no chat template, which the task's conversations need")
        text = written(messages, options)
        for what, less in _without_tools(messages, options):
            try:
                unread = written(*less) == text
            except UserError:  # it cannot do without them
                unread = False
            if unread:
                raise UserError(f"the chat template of {name!r} leaves its {what} out")
    return text


def _without_tools(
    messages: list[dict[str, Any]], options: dict[str, Any]
) -> Iterator[tuple[str, tuple[list[dict[str, Any]], dict[str, Any]]]]:
    """The same conversation without its tools, and without its calls of them, where it has any: what a template
    writes alike with and without them nobody would read."""
    if options.get("tools"):
        yield "tools", (messages, {key: value for key, value in options.items() if key != "tools"})
    if any(message.get("tool_calls") for message in messages):
        silent = [{k: v for k, v in message.items() if k != "tool_calls"} for message in messages]
        yield "tool_calls", (silent, options)


def template_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of what a chat template wrote: the special tokens are in it, and none is added."""
    return _one_bos(tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer)


def _one_bos(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """A text that begins with a BOS, as a conversation written out beforehand does, gets no second one."""
    bos = tokenizer.bos_token_id
    while bos is not None and ids[:2] == [bos, bos]:
        ids = ids[1:]
    return ids
