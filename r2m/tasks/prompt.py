"""A query as a task states it, and the tokens that a policy is given for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from r2m.errors import UserError


@dataclass(frozen=True)
class Prompt:
    """Either plain text or a conversation whose last message is not the assistant's; one of the two."""

    text: str | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    reference: str | None = None  # a good response, where the task knows one

    def __post_init__(self) -> None:
        if (self.text is None) == (self.messages is None):
            raise ValueError(f"text = {self.text!r}, messages = {self.messages!r}: give one of the two")


def render(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a prompt, up to where the response begins: never with an end token of its own.

    A conversation goes through the tokenizer's chat template, up to the header of the assistant's answer;
    plain text gets what the tokenizer puts in front of any text, such as a BOS.

    Raises UserError for a conversation where the tokenizer has no chat template.
    """
    if prompt.messages is not None:
        if tokenizer.chat_template is None:
            raise UserError(
                f"policy.model = {tokenizer.name_or_path!r}: its tokenizer has no chat template, which the "
                "task's conversations need"
            )
        rendered = tokenizer.apply_chat_template(
            list(prompt.messages), add_generation_prompt=True, tokenize=False
        )
        # The template writes the special tokens itself.
        return tokenizer(rendered, add_special_tokens=False)["input_ids"]
    ids = tokenizer(prompt.text)["input_ids"]
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids
