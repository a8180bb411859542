"""Queries, and responses to them as text.

Axes: N queries, K responses, R response tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from r2m.core.trajectories import Trajectories
from r2m.tasks.answer import answer_texts
from r2m.tasks.prompt import Prompt


class Query(NamedTuple):
    """A prompt and its ids under the policy's tokenizer."""

    prompt: Prompt
    ids: list[int]


def same_tokens(a: PreTrainedTokenizerBase, b: PreTrainedTokenizerBase) -> bool:
    """Whether ids mean the same to both, and both would dress a prompt alike."""
    return (
        a.get_vocab() == b.get_vocab()
        and a.eos_token_id == b.eos_token_id
        and getattr(a, "chat_template", None) == getattr(b, "chat_template", None)
    )


def response_texts(tokenizer: PreTrainedTokenizerBase, queries: Sequence[Query], t: Trajectories) -> list[str]:
    """The text of each response, query by query, as gold, judges and people read it: spaces as they were written,
    no end token; of a conversation, the answer alone."""
    rows = zip(queries, token_ids(t, t.lengths_NK - t.ended_NK.long()), strict=True)
    return [text for query, ids_K in rows for text in answer_texts(tokenizer, query.prompt, ids_K)]


def token_ids(t: Trajectories, lengths_NK: Tensor) -> list[list[list[int]]]:
    """The ids of each response, query by query, up to its length."""
    rows = zip(t.response_ids_NKR.tolist(), lengths_NK.tolist(), strict=True)
    return [[ids[:n] for ids, n in zip(ids_KR, lengths_K, strict=True)] for ids_KR, lengths_K in rows]
