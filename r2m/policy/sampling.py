"""The border between Algorithm 1 and what writes its responses, and our own sampler behind it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from transformers import PreTrainedTokenizerBase

from r2m.config import Algorithm
from r2m.core.seeds import generator
from r2m.core.trajectories import Trajectories
from r2m.policy.output import padding_id
from r2m.policy.policy import TrainedPolicy
from r2m.policy.queries import Query
from r2m.policy.sampler import HELD_OUT_STREAM, eos_token_ids, sample, uniform_draws
from r2m.workers import Workers


class Sampled(NamedTuple):
    trajectories: Trajectories
    greedy: Trajectories | None  # of each query the likeliest response (K = 1), where it is wanted


class ResponseSampler(Protocol):
    """Writes responses from the policy's present weights. All workers call each method alike."""

    def __call__(self, queries: Sequence[Query], step: int) -> Sampled:
        """K responses to each of this worker's queries in round `step` (Alg. 1 line 5)."""

    def held_out(self, queries: Sequence[Query], *, reference: bool = False) -> Trajectories:
        """A response (K = 1) of the policy, or of its reference, to each: the same draws at every call."""

    def references(self, queries: Sequence[Query], K: int) -> Trajectories:
        """K responses of the reference to each prompt: the same whenever it is asked for."""

    def weights_changed(self, step: int) -> None:
        """The policy has been trained in round `step`."""


def reference_stream(query: Query) -> str:
    """The stream of draws for the reference's responses to a prompt, whenever and wherever that is met."""
    return f"reference {query.ids}"


class OwnSampler:
    """r2m.policy.sampler's, on whole weights."""

    def __init__(
        self, policy: TrainedPolicy, tokenizer: PreTrainedTokenizerBase, algorithm: Algorithm, workers: Workers, *,
        greedy: bool, seed: int, eval_seed: int,
    ) -> None:  # fmt: skip
        self._policy, self._a, self._workers = policy, algorithm, workers
        self._greedy, self._seed, self._eval_seed = greedy, seed, eval_seed
        self._eos_ids = eos_token_ids(policy.model, tokenizer.eos_token_id)
        self._pad_id = padding_id(policy.model, tokenizer)

    def __call__(self, queries: Sequence[Query], step: int) -> Sampled:
        a = self._a
        draws = uniform_draws(self._seed, step, a.queries, a.responses, a.max_response_tokens)
        t = self._sample(queries, draws[self._workers.own(len(draws))], greedy=self._greedy)
        if not self._greedy:
            return Sampled(t, None)
        N, K = len(queries), a.responses
        return Sampled(t.block(slice(0, N), slice(0, K)), t.block(slice(0, N), slice(K, K + 1)))

    def held_out(self, queries: Sequence[Query], *, reference: bool = False) -> Trajectories:
        N = len(queries) * self._workers.size
        draws = uniform_draws(self._eval_seed, 0, N, 1, self._a.max_response_tokens, stream=HELD_OUT_STREAM)
        return self._sample(queries, draws[self._workers.own(len(draws))], reference=reference)

    def references(self, queries: Sequence[Query], K: int) -> Trajectories:
        shape = K, self._a.max_response_tokens
        draws = [torch.rand(shape, generator=generator(reference_stream(q), self._seed, 0)) for q in queries]
        return self._sample(queries, torch.stack(draws), reference=True)

    def weights_changed(self, step: int) -> None:
        pass  # it reads the policy's own

    def _sample(
        self, queries: Sequence[Query], draws_NKR: torch.Tensor, *, greedy: bool = False, reference: bool = False
    ) -> Trajectories:
        a = self._a
        with self._policy.whole(reference=reference) as model:
            return sample(
                model, [query.ids for query in queries], draws_NKR, temperature=a.temperature, eos_ids=self._eos_ids,
                pad_id=self._pad_id, batch=a.sample_batch, greedy=greedy,
            )  # fmt: skip
