"""A round of R2M against a round of RLOO, by turns in one process; peak memory in a fresh process each.

Both are `r2m.algorithm.train` on copies of one policy, with the same draws; R2M has a feedback head.

    python benchmarks/r2m_vs_rloo.py
"""

from __future__ import annotations

import copy
import functools
import multiprocessing
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from side_by_side import Fixed, llama, llama_config, llama_scorer, one_thread, print_table, ratios, spread  # isort: skip

import torch

import r2m.config
from r2m.algorithm import Round, train
from r2m.config import Algorithm, Reward
from r2m.core.feedback_head import FeedbackHead
from r2m.policy.descent import Descent
from r2m.policy.forward import HiddenStates, hidden_width
from r2m.policy.queries import Query
from r2m.policy.whole import WholePolicy
from r2m.reward.model import RewardModel
from r2m.reward.reward import FeedbackReward, RoundReward, VanillaReward
from r2m.reward.scoring import RewardEmbedder
from r2m.stages.forum import new_policy
from r2m.tasks.forum import forum_tokenizer, write_prompts
from r2m.tasks.prompt import Prompt, prompt_ids
from r2m.workers import Workers

WARM_UP, ROUNDS, PROCESSES = 2, 9, 3
FORUM = r2m.config.load("forum")


class Setting(NamedTuple):
    """Everything that a round needs, before the arms part."""

    policy: torch.nn.Module
    scorer: RewardEmbedder
    queries: list[Query]
    eos: int
    algorithm: Algorithm
    reward: Reward


def forum() -> Setting:
    """The forum recipe, with random weights: responses are as long as the limit, but for chance."""
    tokenizer = forum_tokenizer()
    torch.manual_seed(0)
    policy = new_policy(tokenizer).eval()
    prompts = write_prompts(0, "train", FORUM.algorithm.queries)
    a = FORUM.algorithm.model_copy(update={"rounds": WARM_UP + ROUNDS})
    model = llama_scorer(policy.config)
    scorer = RewardEmbedder(RewardModel(model).requires_grad_(False), tokenizer, tokenizer, a.microbatch)
    queries = [Query(p, prompt_ids(p, tokenizer)) for p in prompts]
    return Setting(policy, scorer, queries, tokenizer.eos_token_id, a, FORUM.reward)


def larger() -> Setting:
    """64 + 32 tokens, hidden 256, 4 layers, vocabulary 4,096, and a head as wide as the paper's."""
    config = llama_config(4096, 256, 4)
    a = Algorithm(
        queries=8, responses=4, rounds=WARM_UP + ROUNDS, microbatch=32, temperature=1.0, max_response_tokens=32
    )
    tokenizer = forum_tokenizer()  # of no account where ids go to the reward model as they are
    scorer = RewardEmbedder(
        RewardModel(llama_scorer(config)).requires_grad_(False), tokenizer, tokenizer, a.microbatch
    )
    rng = random.Random(0)
    queries = [Query(Prompt(text=""), [rng.randrange(1, 4096) for _ in range(64)]) for _ in range(a.queries)]
    return Setting(llama(config), scorer, queries, 4096, a, Reward())


SETTINGS: dict[str, Callable[[], Setting]] = {"forum recipe": forum, "larger": larger}


def rounds(s: Setting, feedback: bool) -> Iterator[Round]:
    a, policy = s.algorithm, copy.deepcopy(s.policy)
    torch.manual_seed(2)
    reward: RoundReward = VanillaReward(s.scorer, s.reward)
    if feedback:
        width = hidden_width(policy)
        head = FeedbackHead.from_score(s.scorer.phi, width, s.reward.attention_width, s.reward.num_heads)
        descent = Descent(
            head.named_parameters(), s.reward.lr, adam_eps=a.adam_eps, weight_decay=0.0, max_grad_norm=1.0,
            workers=Workers(),
        )  # fmt: skip
        reward = FeedbackReward(
            s.scorer, s.reward, head, descent, total_rounds=a.total_rounds, microbatch=a.microbatch,
            workers=Workers(), seed=0,
        )  # fmt: skip
    return train(
        WholePolicy(policy, copy.deepcopy(policy).requires_grad_(False), a, Workers()), Fixed(policy, s.eos, a),
        reward, lambda step: s.queries, algorithm=a, head=s.reward,
    )  # fmt: skip


def stopwatch(seconds: dict[str, float], label: Callable[[], str], function: Callable[..., Any]) -> Any:
    """The function, which adds the CPU seconds of its calls to seconds[label()]."""

    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.process_time()
        result = function(*args, **kwargs)
        seconds[label()] += time.process_time() - started
        return result

    return timed


def watch_feedback(seconds: dict[str, float]) -> None:
    """Time what only R2M does. The annotation phase is the one that runs without gradient."""

    def phase(annotating: str, training: str) -> Callable[[], str]:
        return lambda: training if torch.is_grad_enabled() else annotating

    HiddenStates.store = stopwatch(
        seconds, phase("annotation: store hidden states", "final epoch: store hidden states"), HiddenStates.store
    )
    HiddenStates.rows = stopwatch(
        seconds, phase("annotation: gather hidden states", "head: gather hidden states"), HiddenStates.rows
    )
    FeedbackHead.forward = stopwatch(seconds, phase("annotation: score", "head: forward"), FeedbackHead.forward)


def time_tables(setting: Setting, parts: dict[str, float]) -> None:
    arms = {"RLOO": rounds(setting, False), "R2M": rounds(setting, True)}
    cpu: dict[str, list[float]] = {arm: [] for arm in arms}
    wall: dict[str, list[float]] = {arm: [] for arm in arms}
    phases: list[dict[str, float]] = []
    for step in range(WARM_UP + ROUNDS):
        for arm in list(arms) if step % 2 else reversed(list(arms)):
            parts.clear()
            started = time.process_time(), time.perf_counter()
            metrics = next(arms[arm]).metrics
            cpu[arm].append(time.process_time() - started[0])
            wall[arm].append(time.perf_counter() - started[1])
            if arm == "R2M":
                known = parts["head: forward"] + parts["head: gather hidden states"]
                rest = {"head: backward, optimiser": metrics["time/head_s"] - known}
                phases.append(dict(parts) | rest)
    kept = {arm: (cpu[arm][WARM_UP:], wall[arm][WARM_UP:]) for arm in arms}
    rloo, full = kept["RLOO"], kept["R2M"]
    print_table(
        ("time of a round, s", "RLOO", "R2M", "ratio"),
        [
            (label, spread(rloo[i], 3), spread(full[i], 3), spread(ratios(full[i], rloo[i]), 3))
            for i, label in enumerate(("CPU", "wall"))
        ],
    )
    base = statistics.median(rloo[0])
    measured = {name: [row[name] for row in phases[WARM_UP:]] for name in phases[-1]}
    measured["**sum**"] = [sum(row.values()) for row in phases[WARM_UP:]]
    print_table(
        ("what only R2M does, CPU", "ms", "% of RLOO's round"),
        [
            (name, spread([1000 * x for x in values], 1), f"{100 * statistics.median(values) / base:.1f}")
            for name, values in measured.items()
        ],
    )


def peak_kib() -> int:
    """The most memory resident so far in this process. Its ru_maxrss may be the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def memory_of(name: str, feedback: bool) -> tuple[float, float]:
    """Peak MiB of a process that runs two rounds: all of it, and what its imports do not account for."""
    one_thread()
    imports = peak_kib()
    iterator = rounds(SETTINGS[name](), feedback)
    for _ in range(2):  # the optimisers' moments exist from the first update on
        next(iterator)
    return peak_kib() / 1024, (peak_kib() - imports) / 1024


def memory_tables(name: str, setting: Setting) -> None:
    """Each measurement in a process of its own, forked from one that has done the imports and nothing else."""
    fresh = multiprocessing.get_context("forkserver")
    fresh.set_forkserver_preload(["r2m.algorithm", "r2m.stages.forum"])
    arms: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for _ in range(PROCESSES):
        for feedback, seen in arms.items():
            with fresh.Pool(1) as pool:
                seen.append(pool.apply(memory_of, (name, feedback)))
    rows = []
    for i, label in enumerate(("process", "process without imports")):
        rloo, full = ([m[i] for m in arms[feedback]] for feedback in (False, True))
        rows.append((label, spread(rloo, 0), spread(full, 0), spread(ratios(full, rloo), 3)))
    print_table(("peak memory, MiB", "RLOO", "R2M", "ratio"), rows)
    a, r, D = setting.algorithm, setting.reward, hidden_width(setting.policy)
    P = max(len(query.ids) for query in setting.queries)
    hidden = 4 * a.queries * (P + a.responses * (a.max_response_tokens - 1)) * D
    gathered = 4 * min(a.queries * a.responses, a.microbatch) * (P + a.max_response_tokens - 1) * D
    head = FeedbackHead.from_score(setting.scorer.phi, D, r.attention_width, r.num_heads)
    state = 16 * sum(p.numel() for p in head.parameters())  # weight, gradient and AdamW's two moments, fp32
    print(
        f"\nOf it, by arithmetic: hidden states {hidden / 2**20:.1f} MiB, a microbatch of them gathered for the "
        f"head {gathered / 2**20:.1f}, the head with its gradient and optimiser {state / 2**20:.1f}."
    )


def main() -> None:
    one_thread()
    parts: dict[str, float] = defaultdict(float)
    watch_feedback(parts)
    for name, make in SETTINGS.items():
        setting = make()
        a = setting.algorithm
        print(
            f"\n### {name}: {a.queries} queries x K = {a.responses}, "
            f"head width {setting.reward.attention_width}; median (range) of {ROUNDS} rounds"
        )
        time_tables(setting, parts)
        memory_tables(name, setting)


if __name__ == "__main__":
    main()
