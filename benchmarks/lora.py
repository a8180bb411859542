"""A round of RLOO that trains adapters against one that trains all weights, by turns in one process; peak memory in a
fresh process each.

Both are `r2m.algorithm.train` on one policy of SmolLM2-135M's shape, with random weights and the same draws; the
reward model is small, so that the figures are the policy's.

    python benchmarks/lora.py
"""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Iterator
from pathlib import Path

from side_by_side import Fixed, llama, llama_config, llama_scorer, one_thread, print_table, ratios, spread  # isort: skip

from transformers import LlamaConfig

from r2m.algorithm import Round, train
from r2m.config import Algorithm, Lora, Reward
from r2m.policy.loading import frozen_twin
from r2m.policy.lora import add_adapters
from r2m.policy.queries import Query
from r2m.policy.whole import WholePolicy
from r2m.reward.model import RewardModel
from r2m.reward.reward import VanillaReward
from r2m.reward.scoring import RewardEmbedder
from r2m.tasks.forum import forum_tokenizer
from r2m.tasks.prompt import Prompt
from r2m.workers import Workers

WARM_UP, ROUNDS, PROCESSES = 1, 5, 3
N, K, P, R = 4, 4, 32, 32
SMOLLM2 = LlamaConfig(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, max_position_embeddings=2048, tie_word_embeddings=True, pad_token_id=0, bos_token_id=None,
    eos_token_id=None,
)  # fmt: skip
ARMS = {"all weights": None, "rank 16": Lora(rank=16)}
PHASES = ("sample", "annotate", "policy")


def rounds(lora: Lora | None) -> Iterator[Round]:
    a = Algorithm(
        queries=N, responses=K, rounds=WARM_UP + ROUNDS, epochs=2, microbatch=N * K, temperature=1.0,
        max_response_tokens=R,
    )  # fmt: skip
    policy, twin = llama(SMOLLM2), None
    if lora is None:
        twin = frozen_twin(policy)
    else:
        add_adapters(policy, lora, 0)
    tokenizer, draw = forum_tokenizer(), random.Random(0)
    model = RewardModel(llama_scorer(llama_config(SMOLLM2.vocab_size, 32, 1))).requires_grad_(False)
    settings = Reward(feedback=False, no_eos="keep")
    queries = [Query(Prompt(text=""), [draw.randrange(1, SMOLLM2.vocab_size) for _ in range(P)]) for _ in range(N)]
    return train(
        WholePolicy(policy, twin, a, Workers()), Fixed(policy, SMOLLM2.vocab_size, a),
        VanillaReward(RewardEmbedder(model, tokenizer, tokenizer, a.microbatch), settings), lambda step: queries,
        algorithm=a, head=settings,
    )  # fmt: skip


def peak_mib() -> float:
    """The most memory resident so far in this process. Its ru_maxrss may be the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def memory_of(arm: str) -> float:
    """Peak MiB of a process that runs two rounds, less what its imports take."""
    one_thread()
    import peft

    assert peft
    imports, iterator = peak_mib(), rounds(ARMS[arm])
    for _ in range(2):  # the optimiser's moments exist from the first update on
        next(iterator)
    return peak_mib() - imports


def time_table() -> None:
    runs = {arm: rounds(lora) for arm, lora in ARMS.items()}
    seen: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for step in range(WARM_UP + ROUNDS):
        for arm in list(ARMS) if step % 2 else reversed(list(ARMS)):
            started = time.process_time()
            metrics = next(runs[arm]).metrics
            seconds = {phase: metrics[f"time/{phase}_s"] for phase in PHASES}
            seen[arm].append(seconds | {"**round**": time.process_time() - started})
    rows = []
    for part in (*PHASES, "**round**"):
        full, lora = ([s[part] for s in seen[arm][WARM_UP:]] for arm in ARMS)
        rows.append((part, spread(full), spread(lora), spread(ratios(lora, full))))
    print_table(("CPU seconds", *ARMS, "ratio"), rows)


def memory_table() -> None:
    """Each measurement in a process of its own, forked from one that has done the imports and nothing else."""
    fresh = multiprocessing.get_context("forkserver")
    fresh.set_forkserver_preload(["r2m.algorithm", "r2m.stages.forum"])
    seen: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for _ in range(PROCESSES):
        for arm, peaks in seen.items():
            with fresh.Pool(1) as pool:
                peaks.append(pool.apply(memory_of, (arm,)))
    full, lora = seen.values()
    print_table(
        ("peak memory, MiB", *ARMS, "ratio"), [("", spread(full, 0), spread(lora, 0), spread(ratios(lora, full)))]
    )


def main() -> None:
    one_thread()
    weights = sum(p.numel() for p in llama(SMOLLM2).parameters())
    adapted = llama(SMOLLM2)
    add_adapters(adapted, ARMS["rank 16"] or Lora(), 0)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    print(f"\n{N} queries × K = {K}, {P} + {R} tokens, 2 epochs; {ROUNDS} rounds; {trained:,} of {weights:,} trained")
    del adapted
    time_table()
    memory_table()


if __name__ == "__main__":
    main()
