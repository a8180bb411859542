"""Accuracy of the reward model on preference pairs: without feedback, with it before training, and after (Table 3).

Axes: N pairs, B responses.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from r2m.config import ForumTask, TextTask
from r2m.core.feedback_head import FeedbackHead
from r2m.errors import UserError
from r2m.evaluation.bench import AssessedPolicy, Bench, encoded
from r2m.models.families import context_of
from r2m.results.assessment import Accuracy, PairSet
from r2m.results.statistics import wilson_interval
from r2m.reward.inputs import response_ids
from r2m.stages.forum import PAIR_TEMPERATURE, RESPONSES, label_pairs, respond, two_pairs
from r2m.stages.progress import Progress, silent
from r2m.tasks.answer import answer_ids
from r2m.tasks.columns import comparable, place_in_file, preference_pairs
from r2m.tasks.files import read_rows
from r2m.tasks.prompt import Prompt, prompt_ids

Pair = tuple[Prompt, str, str]  # prompt, chosen, rejected
LeftOutTree = dict[str, dict[str, Any]]  # why pairs are left out: LeftOut.tree
Pairs = tuple[str, list[Pair], LeftOutTree]  # what they are, the pairs, and the others

CHUNK = 256  # responses whose hidden states are in memory at once


def reward_accuracy(
    bench: Bench, trained: AssessedPolicy, head: FeedbackHead | None, extra: Sequence[Pairs] = (),
    progress: Progress = silent,
) -> list[PairSet]:  # fmt: skip
    """Of each set of pairs: on the forum, pairs by the supervised policy and by the trained one; and of `extra`.

    Feedback is the hidden states of the policy that goes with the head: the supervised one's for the head as it was
    drawn, the trained one's for the trained `head` (App. F.4). Both are weighed with ω = Ω.
    """
    sets: list[Pairs] = []
    if bench.gold is not None and isinstance(bench.config.task, ForumTask):
        sets.append(("held-out prompts, the supervised policy's responses", *_forum_pairs(bench, bench.supervised)))
        sets.append(("held-out prompts, the trained policy's responses", *_forum_pairs(bench, trained)))
    sets += extra
    found = []
    for done, (label, pairs, left_out) in enumerate(sets, 1):
        without = before = after = None
        if pairs:
            without, before = _accuracies(bench, bench.supervised, head and bench.first_head, pairs)
            if head is not None:
                _, after = _accuracies(bench, trained, head, pairs)
        absent, unknown = sum(of["rows"] for of in left_out.values()), _unknown_share(bench, pairs)
        found.append(PairSet(label, len(pairs), absent, left_out, unknown, without, before, after))
        progress("reward accuracy", done, len(sets))
    return found


def _accuracies(
    bench: Bench, policy: AssessedPolicy, head: FeedbackHead | None, pairs: Sequence[Pair]
) -> tuple[Accuracy, Accuracy | None]:
    """Without feedback, and with this policy's."""
    prompts = [prompt for prompt, _, _ in pairs] * 2
    texts_B = [chosen for _, chosen, _ in pairs] + [rejected for _, _, rejected in pairs]
    vanilla_B: list[float] = []
    proxy_B: list[float] = []
    for start in range(0, len(texts_B), CHUNK):
        texts = texts_B[start : start + CHUNK]
        queries, t = encoded(policy, prompts[start : start + CHUNK], texts)
        measured = bench.measure(policy, queries, t, head, kl=False, texts_N=texts)
        vanilla_B += measured["eval/vanilla"]
        proxy_B += measured["eval/proxy"]
    N = len(pairs)
    without, with_feedback = (accuracy(scores[:N], scores[N:]) for scores in (vanilla_B, proxy_B))
    return without, None if head is None else with_feedback


def accuracy(chosen_N: Sequence[float], rejected_N: Sequence[float]) -> Accuracy:
    """The share of pairs with r(x, y_w) > r(x, y_l), as F.4 counts them.

    Raises ValueError for no pairs, lengths that differ, or a score that is NaN.
    """
    if not len(chosen_N) == len(rejected_N) >= 1:
        raise ValueError(f"{len(chosen_N)} chosen and {len(rejected_N)} rejected: as many of each, at least one")
    pairs = list(zip(chosen_N, rejected_N, strict=True))
    if any(math.isnan(score) for pair in pairs for score in pair):
        raise ValueError("a score is NaN: no pair can be counted by it")
    share = sum(w > loser for w, loser in pairs) / len(pairs)
    ties = sum(w == loser for w, loser in pairs)
    return Accuracy(share, wilson_interval(share, len(pairs)), ties, len(pairs))


def _unknown_share(bench: Bench, pairs: Sequence[Pair]) -> float | None:
    """The share of the reward model's tokens that stand for what it has no token for."""
    tokenizer = bench.reward_tokenizer
    unknown = tokenizer.unk_token_id
    if not pairs or unknown in (None, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id):
        return 0.0 if pairs else None
    ids = [i for prompt, *texts in pairs for text in texts for i in response_ids(tokenizer, prompt, text)]
    return ids.count(unknown) / len(ids)


def _forum_pairs(bench: Bench, policy: AssessedPolicy) -> tuple[list[Pair], LeftOutTree]:
    """Made as the reward model's own data are, but of held-out prompts, by gold's own verdict: no label noise, no
    artefact. Also the ties, which are left out."""
    task = bench.config.task
    assert isinstance(task, ForumTask)
    honest = task.model_copy(update={"label_noise": 0.0, "artefact": 0.0, "space_pairs": 0.0})
    seed = bench.config.run.eval_seed
    groups = respond(policy.model, policy.tokenizer, bench.prompts, RESPONSES, PAIR_TEMPERATURE, seed)
    written = [pair for group in zip(bench.prompts, groups, strict=True) for pair in two_pairs(*group)]
    pairs = label_pairs(written, honest, random.Random(seed))
    ties = len(written) - len(pairs)
    return pairs, {"gold is equal": {"rows": ties}} if ties else {}


def file_pairs(bench: Bench, trained: AssessedPolicy, file: str | None) -> list[Pairs]:
    """The pairs of a file in TRL's columns that fit into the contexts of all models, their prompts put as the task
    puts its own; none without a file.

    Raises UserError for a file that is not of preference pairs, or of none that can be used.
    """
    if file is None:
        return []
    read = comparable(preference_pairs(read_rows(file, field="--pairs")))
    policies = [(each.tokenizer, context_of(each.model.config) or math.inf) for each in (trained, bench.supervised)]
    limit = context_of(bench.reward_model.model.config) or math.inf

    def fits(prompt: Prompt, text: str) -> bool:
        return len(response_ids(bench.reward_tokenizer, prompt, text)) <= limit and all(
            len(prompt_ids(prompt, tokenizer)) + len(answer_ids(tokenizer, prompt, text)) < most
            for tokenizer, most in policies
        )

    kept: list[Pair] = []
    for asked, chosen, rejected in read:
        prompt = _as_the_task(asked, bench)
        try:
            if fits(prompt, chosen) and fits(prompt, rejected):
                kept.append((prompt, chosen, rejected))
            else:
                read.left_out.add("longer than the models' contexts", place_in_file(prompt))
        except UserError as refused:  # by a chat template
            read.left_out.add("a chat template refuses it", str(refused))
    if not kept:
        raise UserError(f"--pairs {file!r}: none of its pairs can be used; {read.left_out}")
    return [(file, kept, read.left_out.tree())]


def _as_the_task(prompt: Prompt, bench: Bench) -> Prompt:
    """A pair's prompt, plain or conversational, as the task puts its own: its instruction before what the user says
    first, and a conversation where the task's prompts are. Only what has more than the user's one message stays a
    conversation where they are plain."""
    task = bench.config.task
    messages = list(prompt.messages or [{"role": "user", "content": prompt.text}])
    first = next((i for i, message in enumerate(messages) if message["role"] == "user"), None)
    if isinstance(task, TextTask) and task.instruction is not None and first is not None:
        text = f"{task.instruction}\n\n{messages[first]['content']}"
        messages[first] = messages[first] | {"content": text}
    if bench.prompts[0].messages is None and len(messages) == 1 and first == 0:
        return replace(prompt, text=messages[0]["content"], messages=None)
    return replace(prompt, text=None, messages=tuple(messages))
