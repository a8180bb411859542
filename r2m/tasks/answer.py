"""The answer inside a conversation: where a chat template puts it, and what a policy wrote of it.

Axes: N queries, K responses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from r2m.errors import UserError
from r2m.tasks.encoding import decode, encode
from r2m.tasks.prompt import Prompt, conversation, prompt_ids, template_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARK = "r2mAnswerHere7f3a91"  # stands for an answer; one that no template takes for anything else
OPEN_THOUGHT = re.compile(r"<think>\s*$")


class Frame(NamedTuple):
    """What a chat template writes around an answer.

    `before` is mostly `asked`. A template may also write something between the header and the answer (a space, an
    empty thinking block): the policy, who is asked by the header alone, then writes it, or leaves it out.
    """

    asked: str  # the prompt with the header of the answer: what a policy is given
    before: str  # all that is in front of the answer in the whole conversation
    after: str  # and all that follows: the conversation's one end

    @property
    def gap(self) -> str:
        return self.before.removeprefix(self.asked) if self.before.startswith(self.asked) else ""


def frame(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> Frame:
    """Raises UserError as `conversation` does, and for a template that does not show the answer."""
    before, found, after = conversation(prompt, tokenizer, MARK).rpartition(MARK)
    if not found:
        raise UserError(
            f"{tokenizer.name_or_path!r}: its chat template does not show the text of an assistant's answer"
        )
    return Frame(conversation(prompt, tokenizer), before, after)


def tokens_around_answer(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens a reward model reads beside an answer's own, the end token of plain text not counted.

    Raises UserError as `frame` does.
    """
    if prompt.messages is None:
        return len(prompt_ids(prompt, tokenizer))
    f = frame(prompt, tokenizer)
    return len(template_ids(f.before, tokenizer)) + len(template_ids(f.after, tokenizer))


def policy_frame(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> Frame:
    """As `frame`; a policy's template need not show answers, only ask for them."""
    try:
        return frame(prompt, tokenizer)
    except UserError:
        asked = conversation(prompt, tokenizer)
        return Frame(asked, asked, "")


def written(f: Frame, text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The answer in what a policy wrote behind `f.asked`: without what the template writes there itself, and with
    the beginning of a thought that the header has opened and the policy has closed."""
    gap, opened = without_special_tokens(f.gap, tokenizer), OPEN_THOUGHT.search(f.asked)
    if gap and text.startswith(gap):
        return text[len(gap) :]
    return opened[0] + text if opened and "</think>" in text else text


def answer_texts(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, responses_K: Sequence[Sequence[int]]
) -> list[str]:
    """The texts of a prompt's responses, their end tokens excluded: of a conversation, the answers alone."""
    texts_K = [decode(tokenizer, ids) for ids in responses_K]
    if prompt.messages is None:
        return texts_K
    f = policy_frame(prompt, tokenizer)
    return [written(f, text, tokenizer) for text in texts_K]


def answer_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, answer: str) -> list[int]:
    """Ids behind those of `prompt_ids(prompt)` by which a policy writes this answer, without an end token."""
    if prompt.messages is None:
        return encode(tokenizer, answer)
    try:
        f = frame(prompt, tokenizer)
    except UserError:  # its template asks for answers alone
        return encode(tokenizer, answer)
    if not f.before.startswith(f.asked):  # the header opens a thought, and the conversation shows none
        return encode(tokenizer, answer)
    text = conversation(prompt, tokenizer, answer)
    return encode(tokenizer, text.removeprefix(f.asked).removesuffix(f.after))


def without_special_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """A text as `decode` shows it: without special tokens."""
    for token in _special(tokenizer):
        text = text.replace(token, "")
    return text


@lru_cache(maxsize=32)
def _special(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    return tuple(str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
