"""Text that goes on from other text: its ids, and the text of ids, every space as it was written.

A sentencepiece vocabulary writes a space as "▁". Its tokenizer puts one in front of a text, and takes one off in
front when it decodes. So on their own "mom" and " mom" have the same ids, or one space too many, and the tokens
`▁mom` and `mom` the same text. Behind other text they differ: an anchor is put in front, and taken off again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The first whose ids stay what they are in front of the text. Sentencepiece never joins a newline with what follows,
# where it knows newlines at all.
ANCHORS = ("\n", ".", ":", ",", ")", "0")


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a text that goes on from other text, such as a response from its prompt; no special tokens are added."""
    if _space_id(tokenizer) is not None:
        for anchor in ANCHORS:
            head = _ids(tokenizer, anchor)
            both = _ids(tokenizer, anchor + text)
            if head and both[: len(head)] == head:
                return both[len(head) :]
    return _ids(tokenizer, text)


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text that these ids add to the text before them, without special tokens such as an end or padding."""
    anchor = _space_id(tokenizer)
    if anchor is None:
        return _text(tokenizer, ids)
    return _text(tokenizer, [anchor, *ids])[len(_text(tokenizer, [anchor])) :]


@lru_cache(maxsize=32)
def _space_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """A token that begins with sentencepiece's "▁"; None in a vocabulary without one, where nothing is added."""
    special = set(tokenizer.all_special_tokens)
    found = (i for token, i in tokenizer.get_vocab().items() if token.startswith("▁") and token not in special)
    return min(found, default=None)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
