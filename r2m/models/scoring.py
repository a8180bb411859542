"""Scoring of trajectories by a reward model that may have another tokenizer than the policy.

Axes: N queries, K responses, B = N K, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from r2m.config import Reward
from r2m.core.masking import pad
from r2m.core.trajectories import Trajectories
from r2m.errors import UserError
from r2m.models.reward import RewardModel
from r2m.models.sizes import context_of
from r2m.tasks.prompt import Prompt, render


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


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The response's text: spaces as they were generated, without end tokens and padding."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


class FrozenScorer:
    """Reward token embeddings of query + response, cut at the response's end token, which is kept.

    Where the tokenizers agree, ids go from policy to reward model as they are. Where they differ, the text is
    tokenised anew, and the reward model's own end token stands for the policy's.
    """

    def __init__(
        self,
        model: RewardModel,
        tokenizer: PreTrainedTokenizerBase,
        policy_tokenizer: PreTrainedTokenizerBase,
        microbatch: int,
    ) -> None:
        self.model, self.phi = model, model.phi
        self._tokenizer, self._policy_tokenizer = tokenizer, policy_tokenizer
        self._microbatch = microbatch
        self._same = same_tokens(tokenizer, policy_tokenizer)
        self._limit = context_of(model.model.config)

    @torch.no_grad()
    def embed(self, queries: Sequence[Query], t: Trajectories) -> Tensor:
        """H_last, [N, K, D], fp32, on the reward model's device."""
        N, K = t.ended_NK.shape
        lengths, ids, ended = t.lengths_NK.tolist(), t.response_ids_NKR.tolist(), t.ended_NK.tolist()
        sequences = [
            self._ids(queries[n], ids[n][k][: lengths[n][k]], ended[n][k]) for n in range(N) for k in range(K)
        ]
        device = self.phi.weight.device
        parts = []
        for start in range(0, len(sequences), self._microbatch):
            batch, mask = pad(sequences[start : start + self._microbatch], self._pad_id, "right")
            parts.append(self.model.embed(batch.to(device), mask.to(device)))
        return torch.cat(parts).view(N, K, -1)

    @property
    def _pad_id(self) -> int:
        return self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else 0

    def _ids(self, query: Query, response: list[int], ended: bool) -> list[int]:
        if self._same:
            ids = query.ids + response
        else:
            ids = response_ids(self._tokenizer, query.prompt, decode(self._policy_tokenizer, response), ended)
        if self._limit is not None and len(ids) > self._limit:
            raise UserError(
                f"reward.model: query and response have {len(ids)} tokens, its context is {self._limit}; "
                "lower task.max_prompt_tokens or algorithm.max_response_tokens"
            )
        return ids


def response_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: str, ended: bool = True
) -> list[int]:
    """Ids of a prompt with a response under a reward model's tokenizer, its end token last if it has ended."""
    ids = render(prompt, tokenizer) + tokenizer(response, add_special_tokens=False)["input_ids"]
    return [*ids, tokenizer.eos_token_id] if ended else ids


def end_token_rule(scores: Tensor, ended: Tensor, reward: Reward) -> Tensor:
    """Scores with those of responses that have no end token within the limit replaced or lowered, as
    `reward.no_eos` says. It means something only for a reward model whose mean SFT reward is near 0."""
    if reward.no_eos == "keep":
        return scores
    value = torch.full_like(scores, reward.no_eos_value)
    return torch.where(ended, scores, value if reward.no_eos == "replace" else scores - value.abs())
