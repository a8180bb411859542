"""Sampling by vLLM: an engine elsewhere, with weights of its own, which is sent the policy's.

Axes: N queries, K responses, R response tokens.

The seed of a request is a function of (stream, seed, round, query, response), so sampling needs no state to resume.
vLLM draws other responses from the same distribution than `own` does, and not to the last bit the same in another
batch. What training needs of a response (log-probs, hidden states) comes from the policy's own forward.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from r2m.config import Algorithm, Config
from r2m.core.masking import pad
from r2m.core.seeds import request_seed
from r2m.core.trajectories import Trajectories
from r2m.policy.lora import own_weights
from r2m.policy.output import padding_id, unused_ids
from r2m.policy.policy import TrainedPolicy
from r2m.policy.queries import Query
from r2m.policy.sampler import HELD_OUT_STREAM, eos_token_ids
from r2m.policy.sampling import Sampled, reference_stream
from r2m.workers import Workers

REFERENCE = -1  # a version in the place of a round: the weights that the policy had before training
TRIES = 3  # of responses at which an engine died


@dataclass(frozen=True)
class EngineSettings:
    """All that an engine draws by, but for a prompt and a seed."""

    model_config: dict[str, Any]  # the policy's config.json; its weights are sent
    dtype: str
    context: int  # tokens of the longest prompt and a response
    temperature: float
    max_response_tokens: int
    eos_ids: tuple[int, ...]
    unused_ids: tuple[int, ...]  # that no token has: never drawn
    memory: float  # share of a GPU for weights and caches
    gpus: int  # of its own; 0: the worker's, where it sleeps in between


class Request(NamedTuple):
    prompt: list[int]
    seed: int | None  # None: the likeliest token at every position


class Drawn(NamedTuple):
    ids: list[int]  # the end token included
    log_probs: list[float]  # under the distribution that they were drawn from; of the likeliest, at temperature 1


class EngineDiedError(RuntimeError):
    """The engine's process is gone, and what was asked of it will not be answered."""


class StaleWeightsError(RuntimeError):
    """Responses are not of the weights that they should be of."""


class Engine(Protocol):
    """A running vLLM. `load` and `write` raise EngineDiedError where it runs no more."""

    def load(self, weights: Iterator[tuple[str, Tensor]], version: int) -> None:
        """Take these weights over, all of them; what was cached under those before is dropped."""

    def write(self, requests: Sequence[Request]) -> tuple[int | None, list[Drawn]]:
        """The version of the weights, and by them a response to each."""

    def restart(self) -> None:
        """Another in its place, without weights."""


StartEngine = Callable[[EngineSettings], Engine]


class VllmSampler:
    """See r2m.policy.sampling.ResponseSampler.

    Weights are sent before the first responses that they are to write. `told` hears, on every worker, of an engine
    that died on any: all send their weights again, for a policy may be whole on none of them.
    """

    def __init__(
        self, policy: TrainedPolicy, tokenizer: PreTrainedTokenizerBase, algorithm: Algorithm, workers: Workers,
        engine: Engine, *, greedy: bool, seed: int, eval_seed: int, told: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._policy, self._workers, self._engine, self._told = policy, workers, engine, told
        self._responses, self._greedy, self._seed, self._eval_seed = algorithm.responses, greedy, seed, eval_seed
        self._pad_id = padding_id(policy.model, tokenizer)
        self._eos_ids = eos_token_ids(policy.model, tokenizer.eos_token_id)
        self._trained = 0  # the policy's weights are those after this round
        self._sent: int | None = None  # the version of the weights that the engine has taken over

    def __call__(self, queries: Sequence[Query], step: int) -> Sampled:
        """Raises StaleWeightsError where nobody has told of the weights after round `step` - 1."""
        if self._trained != step - 1:
            raise StaleWeightsError(
                f"round {step} samples from the weights after round {step - 1}; the last that the sampler was told "
                f"of are those after round {self._trained}"
            )
        N, K = len(queries), self._responses
        likeliest = [None] if self._greedy else []
        own = self._workers.own(N * self._workers.size)
        seeds_NK = [[*(request_seed("rounds", self._seed, step, i, k) for k in range(K)), *likeliest] for i in own]
        t = self._write(queries, seeds_NK, self._trained)
        if not self._greedy:
            return Sampled(t, None)
        return Sampled(t.block(slice(0, N), slice(0, K)), t.block(slice(0, N), slice(K, K + 1)))

    def held_out(self, queries: Sequence[Query], *, reference: bool = False) -> Trajectories:
        own = self._workers.own(len(queries) * self._workers.size)
        seeds_N1 = [[request_seed(HELD_OUT_STREAM, self._eval_seed, 0, i, 0)] for i in own]
        return self._write(queries, seeds_N1, REFERENCE if reference else self._trained)

    def references(self, queries: Sequence[Query], K: int) -> Trajectories:
        seeds_NK = [[request_seed(reference_stream(q), self._seed, 0, 0, k) for k in range(K)] for q in queries]
        return self._write(queries, seeds_NK, REFERENCE)

    def weights_changed(self, step: int) -> None:
        self._trained = step

    def _write(
        self, queries: Sequence[Query], seeds_NK: Sequence[Sequence[int | None]], version: int
    ) -> Trajectories:
        """A response to each query for each of its seeds, by the weights of that version."""
        requests = [Request(q.ids, seed) for q, seeds_K in zip(queries, seeds_NK, strict=True) for seed in seeds_K]
        device = self._policy.device
        for _ in range(TRIES):
            wrote, written, death = None, None, "on another worker"
            try:
                if self._workers.any(self._sent != version, device):
                    self._send(version)
                wrote, written = self._engine.write(requests)
            except EngineDiedError as error:
                death, self._sent = str(error), None
                self._engine.restart()
            if not self._workers.any(written is None, device):
                break
            self._told(f"vLLM died: {death}")
        if written is None:
            raise RuntimeError(f"vLLM died {TRIES} times at the same responses: {death}")
        if wrote != version:
            raise StaleWeightsError(f"vLLM wrote by weights of version {wrote}; the policy's are of {version}")
        return trajectories([q.ids for q in queries], written, self._eos_ids, self._pad_id).to(device)

    def _send(self, version: int) -> None:
        reading = self._policy.whole(reference=True) if version == REFERENCE else nullcontext()
        with reading as reference:
            weights = self._policy.weights() if reference is None else own_weights(reference)
            try:
                self._engine.load(weights, version)
            finally:
                for _ in weights:  # other workers may wait for this one's part in what is left
                    pass
        self._sent = version


def engine_settings(
    policy: TrainedPolicy, tokenizer: PreTrainedTokenizerBase, config: Config, longest_prompt: int
) -> EngineSettings:  # fmt: skip
    a, model = config.algorithm, policy.model
    unused_V = unused_ids(model)
    return EngineSettings(
        model_config=model.config.to_dict() | {"architectures": [type(model).__name__]},
        dtype=config.policy.dtype,
        context=longest_prompt + a.max_response_tokens,
        temperature=a.temperature,
        max_response_tokens=a.max_response_tokens,
        eos_ids=eos_token_ids(model, tokenizer.eos_token_id),
        unused_ids=() if unused_V is None else tuple(unused_V.nonzero().flatten().tolist()),
        memory=config.rollout.memory,
        gpus=config.rollout.gpus // config.run.workers,
    )


def trajectories(
    prompts: Sequence[list[int]], written: Sequence[Drawn], eos_ids: Sequence[int], pad_id: int
) -> Trajectories:
    """Of N prompts and N K responses, prompt by prompt."""
    N = len(prompts)
    prompt_ids_NP, prompt_mask_NP = pad(prompts, pad_id, "left")
    ids, mask = pad([w.ids for w in written], pad_id, "right")
    log_probs = torch.zeros(ids.shape)
    log_probs[mask] = torch.tensor([log_prob for w in written for log_prob in w.log_probs])
    ended = torch.tensor([w.ids[-1] in eos_ids for w in written])
    ids_NKR, mask_NKR, log_probs_NKR = (x.view(N, -1, x.shape[-1]) for x in (ids, mask, log_probs))
    return Trajectories(prompt_ids_NP, prompt_mask_NP, ids_NKR, mask_NKR, log_probs_NKR, ended.view(N, -1))
