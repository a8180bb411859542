"""Accuracy of the reward model on preference pairs: without feedback, with it before training, and after (Table 3).

Axes: N pairs, B responses.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from r2m.assessment.bench import Bench, Policy, encoded
from r2m.config import ForumTask, TextTask
from r2m.core.feedback_head import FeedbackHead
from r2m.errors import UserError
from r2m.evaluation.reward_accuracy import accuracy
from r2m.models.reward_input import response_ids
from r2m.stages.common import Progress, silent
from r2m.stages.forum import PAIR_TEMPERATURE, RESPONSES, label_pairs, respond, two_pairs
from r2m.tasks.columns import comparable, preference_pairs
from r2m.tasks.files import read_rows
from r2m.tasks.prompt import Prompt
from r2m.tasks.text import shaped

Pair = tuple[Prompt, str, str]  # prompt, chosen, rejected
Pairs = tuple[str, list[Pair], int]  # what they are, the pairs, how many were left out
Tree = dict[str, Any]

CHUNK = 256  # responses whose hidden states are in memory at once


def reward_accuracy(
    bench: Bench,
    trained: Policy,
    head: FeedbackHead | None,
    extra: Sequence[Pairs] = (),
    progress: Progress = silent,
) -> list[Tree]:
    """Of each set of pairs: on the forum, pairs by the supervised policy and by the trained one; and of `extra`.

    Feedback is the hidden states of the policy that goes with the head: the supervised one's for the head as it was
    drawn, the trained one's for the trained `head` (App. F.4). Both are weighed with ω = Ω.
    """
    sets: list[Pairs] = []
    if bench.gold is not None and isinstance(bench.config.task, ForumTask):
        sets.append(
            ("held-out prompts, the supervised policy's responses", *_forum_pairs(bench, bench.supervised))
        )
        sets.append(("held-out prompts, the trained policy's responses", *_forum_pairs(bench, trained)))
    sets += extra
    trees = []
    for done, (label, pairs, left_out) in enumerate(sets):
        tree: Tree = {"pairs": label, "n": len(pairs), "left_out": left_out}
        tree |= dict.fromkeys(("without", "before", "after"))
        if pairs:
            first = bench.first_head if head is not None else None
            tree["without"], tree["before"] = _accuracies(bench, bench.supervised, first, pairs)
            if head is not None:
                _, tree["after"] = _accuracies(bench, trained, head, pairs)
        trees.append(tree)
        progress("reward accuracy", done + 1, len(sets))
    return trees


def _accuracies(
    bench: Bench, policy: Policy, head: FeedbackHead | None, pairs: Sequence[Pair]
) -> tuple[Tree, Tree | None]:
    """Without feedback, and with this policy's."""
    prompts = [prompt for prompt, _, _ in pairs] * 2
    texts_B = [chosen for _, chosen, _ in pairs] + [rejected for _, _, rejected in pairs]
    vanilla_B: list[float] = []
    proxy_B: list[float] = []
    for start in range(0, len(texts_B), CHUNK):
        queries, t = encoded(policy, prompts[start : start + CHUNK], texts_B[start : start + CHUNK])
        measured = bench.measure(policy, queries, t, head, kl=False)
        vanilla_B += measured["eval/vanilla"]
        proxy_B += measured["eval/proxy"]
    N = len(pairs)
    without, with_feedback = (
        {**asdict(found := accuracy(scores[:N], scores[N:])), "interval": list(found.interval)}
        for scores in (vanilla_B, proxy_B)
    )
    return without, None if head is None else with_feedback


def _forum_pairs(bench: Bench, policy: Policy) -> tuple[list[Pair], int]:
    """Made as the reward model's own data are, but of held-out prompts, by gold's own verdict: no label noise, no
    artefact. Also how many ties are left out."""
    task = bench.config.task
    assert isinstance(task, ForumTask)
    honest = task.model_copy(update={"label_noise": 0.0, "artefact": 0.0, "space_pairs": 0.0})
    seed = bench.config.run.eval_seed
    groups = respond(policy.model, policy.tokenizer, bench.prompts, RESPONSES, PAIR_TEMPERATURE, seed)
    written = [pair for group in zip(bench.prompts, groups, strict=True) for pair in two_pairs(*group)]
    pairs = label_pairs(written, honest, random.Random(seed))
    return pairs, len(written) - len(pairs)


def file_pairs(bench: Bench, trained: Policy, file: str | None) -> list[Pairs]:
    """The pairs of a file in TRL's columns that fit into the contexts of all models; none without a file.

    Raises UserError for a file that is not of preference pairs, or of none that fit.
    """
    if file is None:
        return []
    task = bench.config.task
    read = comparable(preference_pairs(read_rows(file, field="--pairs")))
    pairs: list[Pair] = read
    if isinstance(task, TextTask):  # plain prompts are put as the task puts its own
        pairs = [
            (shaped(p, task.instruction, task.as_chat) if p.messages is None else p, chosen, rejected)
            for p, chosen, rejected in pairs
        ]
    readers = [
        (trained.tokenizer, trained.model.config),
        (bench.supervised.tokenizer, bench.supervised.model.config),
        (bench.reward_tokenizer, bench.reward_model.model.config),
    ]
    limits = [
        (tokenizer, getattr(c, "max_position_embeddings", None) or math.inf) for tokenizer, c in readers
    ]

    def fits(pair: Pair) -> bool:
        prompt, *texts = pair
        return all(
            len(response_ids(tokenizer, prompt, text)) <= limit
            for text in texts
            for tokenizer, limit in limits
        )

    kept = [pair for pair in pairs if fits(pair)]
    if not kept:
        raise UserError(f"--pairs {file!r}: none of its {len(pairs)} pairs fits into the models' contexts")
    return [(file, kept, len(pairs) - len(kept) + sum(read.left_out.values()))]
