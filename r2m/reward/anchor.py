"""Anchored R2M: original preference pairs, read through the policy's hidden states as they are now.

R2M's head learns from pairs that it has chosen itself. Here so much of its loss is Bradley-Terry's on pairs that the
reward model was trained on: their verdicts are people's, and their hidden states the current policy's.

Axes: N pairs, K = 2 responses (chosen, rejected), R response tokens.
"""

import random
from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from r2m.config import Algorithm
from r2m.core.masking import pad
from r2m.core.trajectories import Trajectories
from r2m.errors import UserError
from r2m.policy.policy import TrainedPolicy, states_of
from r2m.policy.queries import Query
from r2m.reward.reward import RoundReward, Scored
from r2m.reward.scoring import RewardEmbedder
from r2m.tasks.answer import answer_ids
from r2m.tasks.columns import PreferencePair
from r2m.tasks.prompt import prompt_ids
from r2m.workers import Workers

DRAWN_FROM = 4096  # pairs that are drawn from


class Anchor:
    """Pairs as the trajectories that the policy would have written, each with its end token."""

    def __init__(
        self, pairs: Sequence[PreferencePair], tokenizer: PreTrainedTokenizerBase, scorer: RewardEmbedder, *,
        filler: int, in_round: int, prompt_tokens: int, response_tokens: int, seed: int, workers: Workers,
    ) -> None:  # fmt: skip
        """`filler`: an id for padding. `in_round`: pairs of a round, of all workers. `prompt_tokens`,
        `response_tokens`: what a round's trajectories have at most, under the policy's tokenizer; longer pairs are
        left out, and those that the reward model has no room for.

        Raises UserError where fewer than a round's fit.
        """
        self._filler, self._in_round, self._workers = filler, in_round, workers
        self._pairs: list[tuple[Query, list[list[int]]]] = []
        order = random.Random(f"anchor {seed}").sample(range(len(pairs)), len(pairs))
        for i in order:
            prompt, *texts = pairs[i]
            query = Query(prompt, prompt_ids(prompt, tokenizer))
            responses = [[*answer_ids(tokenizer, prompt, text), tokenizer.eos_token_id] for text in texts]
            fits = 0 < len(query.ids) <= prompt_tokens and max(map(len, responses)) <= response_tokens
            if fits and scorer.has_room(prompt, texts):
                self._pairs.append((query, responses))
            if len(self._pairs) == DRAWN_FROM:
                break
        if len(self._pairs) < in_round:
            raise UserError(
                f"reward.anchor: of {len(pairs)} pairs {len(self._pairs)} are no longer than the run's prompts "
                f"({prompt_tokens} tokens) and responses ({response_tokens}); a round takes {in_round}"
            )

    def __len__(self) -> int:
        return len(self._pairs)

    def of_round(self, step: int, device: torch.device | str) -> tuple[list[Query], Trajectories]:
        """This worker's pairs of round `step` (from 1), as queries with two responses: one after another, and
        from the first on again."""
        first = (step - 1) * self._in_round
        own = [self._pairs[(first + i) % len(self)] for i in self._workers.own(self._in_round)]
        queries, responses = zip(*own, strict=True)
        prompt_ids_NP, prompt_mask_NP = pad([query.ids for query in queries], self._filler, "left")
        ids_BR, mask_BR = pad([ids for pair in responses for ids in pair], self._filler, "right")
        N = len(queries)
        t = Trajectories(
            prompt_ids_NP, prompt_mask_NP, ids_BR.view(N, 2, -1), mask_BR.view(N, 2, -1),
            torch.zeros(N, 2, ids_BR.shape[1]), torch.ones(N, 2, dtype=torch.bool),
        )  # fmt: skip
        return list(queries), t.to(device)

    def scored(
        self, step: int, policy: TrainedPolicy, feedback: RoundReward, a: Algorithm, keep: torch.device | str
    ) -> Scored:
        """The same, read through the policy as it is now, as `feedback` scores it again while the head learns.
        `keep`: where the hidden states wait."""
        queries, t = self.of_round(step, policy.device)
        return feedback.score(queries, t, states_of(policy, t, a, keep), step)
