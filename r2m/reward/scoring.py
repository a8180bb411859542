"""Scoring of trajectories by a reward model that may have another tokenizer than the policy.

Axes: N queries, K responses, B = N K, T tokens, D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from r2m.config import Reward
from r2m.core.masking import pad
from r2m.core.trajectories import Trajectories
from r2m.errors import UserError
from r2m.models.families import context_of
from r2m.policy.queries import Query, token_ids
from r2m.reward.inputs import RewardInput, response_ids
from r2m.reward.model import RewardModel
from r2m.tasks.prompt import Prompt


class RewardEmbedder:
    """Reward token embeddings of queries with responses, put as r2m.reward.inputs says."""

    def __init__(
        self, model: RewardModel, tokenizer: PreTrainedTokenizerBase, policy_tokenizer: PreTrainedTokenizerBase,
        microbatch: int,
    ) -> None:  # fmt: skip
        self.model, self.phi = model, model.phi
        self._tokenizer, self._microbatch = tokenizer, microbatch
        self._input = RewardInput(tokenizer, policy_tokenizer)
        self._limit = context_of(model.model.config)

    def embed(self, queries: Sequence[Query], t: Trajectories) -> Tensor:
        """H_last, [N, K, D], fp32, on the reward model's device."""
        N, K = t.ended_NK.shape
        rows = zip(queries, token_ids(t, t.lengths_NK), t.ended_NK.tolist(), strict=True)
        sequences = [ids for query, ids_K, ended_K in rows for ids in self._input.ids(query.prompt, ids_K, ended_K)]
        return self._embed(sequences).view(N, K, -1)

    def embed_texts(self, prompts: Sequence[Prompt], texts_B: Sequence[str]) -> Tensor:
        """H_last, [B, D], of responses given as text, each of which has ended."""
        pairs = zip(prompts, texts_B, strict=True)
        return self._embed([response_ids(self._tokenizer, prompt, text) for prompt, text in pairs])

    def has_room(self, prompt: Prompt, texts: Sequence[str]) -> bool:
        """Whether the prompt with each of the responses fits into the reward model's context."""
        most = self._limit
        return most is None or all(len(response_ids(self._tokenizer, prompt, text)) <= most for text in texts)

    @torch.no_grad()
    def _embed(self, sequences: Sequence[list[int]]) -> Tensor:
        longest = max(map(len, sequences))
        if self._limit is not None and longest > self._limit:
            raise UserError(
                f"reward.model: query and response have {longest} tokens, its context is {self._limit}; "
                "lower task.max_prompt_tokens or algorithm.max_response_tokens"
            )
        pad_id = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else 0
        size, device = self._microbatch, self.phi.weight.device
        batches = (pad(sequences[i : i + size], pad_id, "right") for i in range(0, len(sequences), size))
        return torch.cat([self.model.embed(ids_BT.to(device), mask_BT.to(device)) for ids_BT, mask_BT in batches])


def end_token_rule(scores: Tensor, ended: Tensor, reward: Reward) -> Tensor:
    """Scores with those of responses that have no end token within the limit replaced or lowered, as
    `reward.no_eos` says. It means something only for a reward model whose mean SFT reward is near 0."""
    if reward.no_eos == "keep":
        return scores
    value = torch.full_like(scores, reward.no_eos_value)
    return torch.where(ended, scores, value if reward.no_eos == "replace" else scores - value.abs())
