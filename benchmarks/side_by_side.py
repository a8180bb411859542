"""What the benchmarks of speed share: one thread, tiny models, medians with their ranges."""

from __future__ import annotations

import copy
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch starts its threads

import statistics
import time
from collections.abc import Sequence
from types import SimpleNamespace

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedModel

import r2m.round_metrics
from r2m.config import Algorithm
from r2m.policy.queries import Query
from r2m.policy.sampler import sample, uniform_draws
from r2m.policy.sampling import Sampled

PAD = 0


def one_thread() -> None:
    """One thread, and a round's own clock (time/sample_s and so on) that counts CPU seconds, not wall time."""
    torch.set_num_threads(1)
    r2m.round_metrics.time = SimpleNamespace(perf_counter=time.process_time)


def llama_config(vocabulary: int, hidden: int, layers: int) -> LlamaConfig:
    """A Llama of random weights, without an end token: it is the tokenizer's, which the model cannot emit."""
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 32, max_position_embeddings=128, tie_word_embeddings=False,
        pad_token_id=PAD, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip


def llama(config: LlamaConfig) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


def llama_scorer(config: LlamaConfig) -> LlamaForSequenceClassification:
    """A reward model of the policy's shape."""
    torch.manual_seed(1)
    config = copy.deepcopy(config)
    config.num_labels = 1
    return LlamaForSequenceClassification(config).eval()


class Fixed:
    """A sampler (r2m.policy.sampling.ResponseSampler) of prompts that are there, with an end token that is given."""

    def __init__(self, model: PreTrainedModel, eos: int, a: Algorithm) -> None:
        self._model, self._eos, self._a = model, eos, a

    def __call__(self, queries: Sequence[Query], step: int) -> Sampled:
        a = self._a
        draws = uniform_draws(0, step, len(queries), a.responses, a.max_response_tokens)
        ids = [query.ids for query in queries]
        t = sample(self._model, ids, draws, temperature=a.temperature, eos_ids=[self._eos], pad_id=PAD)
        return Sampled(t, None)

    def weights_changed(self, step: int) -> None:
        pass


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median (lowest to highest)."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Of neighbours in an interleaved run, which share the machine's mood."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n| {' | '.join(header)} |\n|---{'|---:' * (len(header) - 1)}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
