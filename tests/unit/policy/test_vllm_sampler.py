"""What vLLM is asked for and sent, with an engine that is a model in this process; tests/with_vllm has vLLM.

Axes: N queries, K responses.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from r2m.config import Algorithm, Lora
from r2m.policy.loading import frozen_twin
from r2m.policy.lora import add_adapters
from r2m.policy.policy import TrainedPolicy
from r2m.policy.queries import Query
from r2m.policy.sampler import sample
from r2m.policy.vllm_sampler import (
    REFERENCE,
    TRIES,
    Drawn,
    EngineDiedError,
    Request,
    StaleWeightsError,
    VllmSampler,
    trajectories,
)
from r2m.policy.whole import WholePolicy
from r2m.tasks.prompt import Prompt
from r2m.workers import Workers

A = Algorithm(queries=4, responses=3, rounds=2, max_response_tokens=5, temperature=0.7, microbatch=3, lr=0.1)
QUERIES = [Query(Prompt(text=""), ids) for ids in ([4, 5, 6], [7], [8, 9], [4, 4])]


class OwnEngine:
    """Writes by `sample` on a model that has the weights that were sent."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.version = frozen_twin(model), None
        self.loads: list[int] = []
        self.requests: list[Request] = []
        self.deaths = self.restarts = 0

    def load(self, weights: Iterator[tuple[str, Tensor]], version: int) -> None:
        self.version = None
        own = dict(self.model.named_parameters())
        for name, weight in weights:
            if self.deaths:
                raise EngineDiedError("killed while weights came")
            own.pop(name).data.copy_(weight)
        assert not own
        self.version: int | None = version
        self.loads.append(version)

    def write(self, requests: Sequence[Request]) -> tuple[int | None, list[Drawn]]:
        if self.deaths:
            raise EngineDiedError("killed")
        self.requests = list(requests)
        written = []
        for prompt, seed in requests:
            generator = torch.Generator().manual_seed((seed or 0) % 2**32)
            draws = torch.rand(1, 1, A.max_response_tokens, generator=generator)
            t = sample(
                self.model, [prompt], draws, temperature=A.temperature, eos_ids=[2], pad_id=1, greedy=seed is None
            )
            row = t.block(slice(0, 1), slice(int(seed is None), None))
            written.append(
                Drawn(row.response_ids_NKR.flatten().tolist(), row.sampler_log_probs_NKR.flatten().tolist())
            )
        return self.version, written

    def restart(self) -> None:
        self.deaths, self.restarts, self.version = self.deaths - 1, self.restarts + 1, None
        for p in self.model.parameters():
            p.zero_()


class OneOfTwo(Workers):
    """As seen by one alone."""

    def sum(self, x: Tensor) -> Tensor:
        return x


Make = Callable[..., tuple[VllmSampler, OwnEngine, TrainedPolicy, list[str]]]


@pytest.fixture
def make(make_policy: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast) -> Make:
    def make(workers: Workers = Workers(), greedy: bool = False, lora: Lora | None = None) -> Any:  # noqa: B008
        model = make_policy()
        reference, engine = frozen_twin(model), OwnEngine(model)
        if lora is not None:
            add_adapters(model, lora, 0)
            reference = None
        policy = WholePolicy(model, reference, A, workers)
        told: list[str] = []
        sampler = VllmSampler(
            policy, tokenizer, A, workers, engine, greedy=greedy, seed=3, eval_seed=4, told=told.append
        )
        return sampler, engine, policy, told

    return make


def move(policy: TrainedPolicy) -> None:
    with torch.no_grad():
        for p in policy.model.parameters():
            p += 0.1 * torch.randn_like(p)


def test_responses_are_of_the_weights_of_now(make: Make) -> None:
    """Weights go over once for each change, before the first responses by them; by the reference and back."""
    sampler, engine, policy, _ = make()
    for step in (1, 2):
        t = sampler(QUERIES, step).trajectories
        old_NKR = policy.forward(t, A.temperature).log_probs_NKR
        torch.testing.assert_close(t.sampler_log_probs_NKR, old_NKR.detach() * t.response_mask_NKR, rtol=0, atol=1e-5)
        sampler.held_out(QUERIES)
        move(policy)
        sampler.weights_changed(step)
    assert engine.loads == [0, 1]
    held_out, start = sampler.held_out(QUERIES), sampler.held_out(QUERIES, reference=True)
    reference_NKR = policy.reference(start, A.temperature).log_probs_NKR
    torch.testing.assert_close(
        start.sampler_log_probs_NKR, reference_NKR * start.response_mask_NKR, rtol=0, atol=1e-5
    )
    again = sampler.held_out(QUERIES)
    torch.testing.assert_close(again.response_ids_NKR, held_out.response_ids_NKR)
    assert engine.loads == [0, 1, 2, REFERENCE, 2]


def test_adapters_are_sent_merged_and_without_them_the_reference(make: Make) -> None:
    """By the names that the weights have without adapters: vLLM knows none."""
    sampler, engine, policy, _ = make(lora=Lora(rank=2))
    with torch.no_grad():
        for name, p in policy.model.named_parameters():
            if ".lora_B." in name:
                p.normal_()
    before = {name: p.clone() for name, p in engine.model.named_parameters()}
    t = sampler.held_out(QUERIES)
    with torch.no_grad():
        now_NKR = policy.forward(t, A.temperature).log_probs_NKR * t.response_mask_NKR
    torch.testing.assert_close(t.sampler_log_probs_NKR, now_NKR, rtol=0, atol=1e-5)
    assert any(not torch.equal(p, before[name]) for name, p in engine.model.named_parameters())
    sampler.held_out(QUERIES, reference=True)
    for name, p in engine.model.named_parameters():
        assert torch.equal(p, before[name])


def test_each_of_two_workers_asks_for_its_part(make: Make) -> None:
    sampler, engine, _, _ = make()
    sampler(QUERIES, 1)
    alone = engine.requests
    assert len({request.seed for request in alone}) == 12
    parts = []
    for rank in (0, 1):
        sampler, engine, _, _ = make(OneOfTwo(rank, 2))
        sampler([QUERIES[i] for i in (rank, rank + 2)], 1)
        parts.append(engine.requests)
    assert [r for i in (0, 1) for part in parts for r in part[3 * i : 3 * i + 3]] == alone


def test_the_likeliest_come_beside(make: Make) -> None:
    sampler, engine, _, _ = make(greedy=True)
    sampled = sampler(QUERIES, 1)
    assert [r.seed is None for r in engine.requests] == [False, False, False, True] * 4
    assert sampled.trajectories.ended_NK.shape == (4, 3)
    assert sampled.greedy is not None
    assert sampled.greedy.ended_NK.shape == (4, 1)


def test_references_to_a_prompt_are_the_same_whenever_it_is_met(make: Make) -> None:
    sampler, engine, policy, _ = make()
    before = sampler.references(QUERIES, 2)
    seeds = [request.seed for request in engine.requests]
    assert len({*seeds}) == 8
    move(policy)
    sampler.weights_changed(1)
    sampler, engine, _, _ = make(OneOfTwo(1, 2))
    again = sampler.references(QUERIES[1:3], 2)
    assert [request.seed for request in engine.requests] == seeds[2:6]
    assert torch.equal(again.response_ids_NKR, before.block(slice(1, 3)).response_ids_NKR)
    assert engine.version == REFERENCE


def test_stale_weights_are_an_error(make: Make) -> None:
    sampler, engine, _, _ = make()
    sampler(QUERIES, 1)
    with pytest.raises(StaleWeightsError, match=r"round 2 samples from the weights after round 1; .* after round 0"):
        sampler(QUERIES, 2)
    sampler.weights_changed(1)
    engine.load = lambda weights, version: None  # type: ignore[method-assign]
    with pytest.raises(StaleWeightsError, match="by weights of version 0; the policy's are of 1"):
        sampler(QUERIES, 2)


def test_an_engine_that_died_gets_the_weights_and_writes_the_same(make: Make) -> None:
    sampler, engine, _, told = make()
    expected = sampler(QUERIES, 1).trajectories
    engine.deaths = 2  # at the responses, and then while weights come
    found = sampler(QUERIES, 1).trajectories
    torch.testing.assert_close(found.response_ids_NKR, expected.response_ids_NKR)
    assert (engine.restarts, engine.loads) == (2, [0, 0])
    assert told == ["vLLM died: killed", "vLLM died: killed while weights came"]
    engine.deaths = TRIES
    with pytest.raises(RuntimeError, match="vLLM died 3 times at the same responses"):
        sampler(QUERIES, 1)


def test_trajectories_by_hand() -> None:
    """Two prompts, a response of each ended; a 2 inside, which is no end token here."""
    written = [Drawn([5, 9], [-1.0, -2.0]), Drawn([7, 2, 7], [-3.0] * 3), Drawn([9], [-4.0]), Drawn([6], [0])]
    t = trajectories([[4], [5, 6]], written, (9,), 1)
    assert t.prompt_ids_NP.tolist() == [[1, 4], [5, 6]]
    assert t.prompt_mask_NP.tolist() == [[False, True], [True, True]]
    assert t.response_ids_NKR.tolist() == [[[5, 9, 1], [7, 2, 7]], [[9, 1, 1], [6, 1, 1]]]
    assert t.lengths_NK.tolist() == [[2, 3], [1, 1]]
    assert t.sampler_log_probs_NKR.tolist() == [[[-1, -2, 0], [-3, -3, -3]], [[-4, 0, 0], [0, 0, 0]]]
    assert t.ended_NK.tolist() == [[True, False], [True, False]]
