"""What a policy is assessed with: a recipe's held-out prompts, its supervised policy, its reward model, its gold.

Axes: N prompts, K responses, B responses that are read as text, R response tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r2m.config import Config, Policy, Rollout
from r2m.core.feedback_head import FeedbackHead
from r2m.core.masking import pad
from r2m.core.trajectories import Trajectories
from r2m.errors import UserError
from r2m.models.loading import load_tokenizer
from r2m.policy.loading import load_policy
from r2m.policy.output import padding_id
from r2m.policy.queries import Query, response_texts, same_tokens
from r2m.policy.sampler import HELD_OUT_STREAM, eos_token_ids, sample, uniform_draws
from r2m.policy.whole import FrozenPolicy
from r2m.results.assessment import Shown
from r2m.reward.model import RewardModel
from r2m.reward.scoring import RewardEmbedder
from r2m.stages.prepare import prepare
from r2m.stages.progress import Progress, silent
from r2m.tasks.answer import answer_ids
from r2m.tasks.prompt import Prompt, prompt_ids
from r2m.training.held_out import held_out_columns
from r2m.training.trainer import Trainer
from r2m.workers import Workers


class AssessedPolicy(NamedTuple):
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


class Written(NamedTuple):
    queries: list[Query]
    t: Trajectories
    texts_NK: list[list[str]]


@dataclass(frozen=True)
class Bench:
    config: Config
    prompts: list[Prompt]  # held out
    gold: Callable[[Sequence[Prompt], Sequence[str]], list[float]] | None
    measures: Callable[[Sequence[Prompt], Sequence[str]], dict[str, float]] | None
    supervised: AssessedPolicy  # where training begins: the reference
    reward_model: RewardModel
    reward_tokenizer: PreTrainedTokenizerBase
    first_head: FeedbackHead | None  # as a run of this configuration draws it, before any training

    def write(
        self, policy: AssessedPolicy, prompts: Sequence[Prompt], K: int, R: int | None = None,
        stream: str = HELD_OUT_STREAM,
    ) -> Written:  # fmt: skip
        """K responses to each prompt, of R tokens at most (the recipe's limit by default), from draws that are the
        same for every policy."""
        a = self.config.algorithm
        R = R or a.max_response_tokens
        draws = uniform_draws(self.config.run.eval_seed, 0, len(prompts), K, R, stream=stream)
        queries = _queries(policy, prompts)
        t = sample(
            policy.model, [q.ids for q in queries], draws, temperature=a.temperature,
            eos_ids=eos_token_ids(policy.model, policy.tokenizer.eos_token_id), pad_id=padding_id(*policy),
            batch=a.sample_batch,
        )  # fmt: skip
        texts = response_texts(policy.tokenizer, queries, t)
        return Written(queries, t, [texts[i : i + K] for i in range(0, len(texts), K)])

    def measure(
        self, policy: AssessedPolicy, queries: Sequence[Query], t: Trajectories, head: FeedbackHead | None, kl: bool,
        texts_N: Sequence[str] | None = None, omega: float | None = None,
    ) -> dict[str, list[float]]:  # fmt: skip
        """As r2m.training.held_out.held_out_columns, at ω = Ω, the weight of a run's last rounds, or `omega`. `kl`:
        to the supervised policy, for a policy with the same tokens. `texts_N`: what `t` is made of, for the reward
        model."""
        c = self.config
        scorer = RewardEmbedder(self.reward_model, self.reward_tokenizer, policy.tokenizer, c.algorithm.microbatch)
        columns = held_out_columns(
            FrozenPolicy(policy.model, self.supervised.model), scorer, queries, t, head,
            c.reward.omega_min if omega is None else omega, c.algorithm, c.reward, Workers(), c.run.eval_seed,
            None if texts_N is None else scorer.embed_texts([q.prompt for q in queries], texts_N)[:, None],
            kl and same_tokens(policy.tokenizer, self.supervised.tokenizer),
        )  # fmt: skip
        return {name: values_N.tolist() for name, values_N in columns.items()}


def open_bench(config: Config, prompts: int | None = None, progress: Progress = silent) -> Bench:
    """`prompts`: how many of the held-out ones, from the first on; all by default.

    Raises UserError for more than there are, and where models or data cannot be had.
    """
    there = config.task.held_out
    if prompts is not None and not 1 <= prompts <= there:
        raise UserError(f"--prompts {prompts}: 1 to {there}, the held-out prompts of this task, are allowed")
    reward = config.reward.model_copy(
        update={"ensemble": "none", "uncertainty": 0.0}
    )  # its own scores and its head's are read
    models = prepare(config.model_copy(update={"reward": reward}), progress)
    # A Trainer draws its head as that of the run did: from the same seed, after the same models.
    run = config.run.model_copy(update={"eval_queries": prompts or there, "judge": None})
    plain = Policy(model=config.policy.model, dtype=config.policy.dtype)  # one worker, nothing to train
    alone = config.model_copy(update={"run": run, "policy": plain, "reward": reward, "rollout": Rollout()})
    trainer = Trainer(alone, models, Workers(), device_of(config))
    with trainer.policy.whole(reference=True) as supervised:
        pass
    return Bench(
        config, [query.prompt for query in trainer.held_out], trainer.gold_program, trainer.measures,
        AssessedPolicy(supervised, trainer.tokenizer), trainer.reward_model, trainer.reward_tokenizer,
        trainer.head,
    )  # fmt: skip


def shown_prompt(prompt: Prompt) -> Shown:
    """As an assessment keeps it."""
    return prompt.text if prompt.text is not None else list(prompt.messages or ())


def open_policy(config: Config, model: str | Path) -> AssessedPolicy:
    """Of a folder or the hub. Raises UserError where there is none."""
    tokenizer = load_tokenizer(str(model))
    return AssessedPolicy(load_policy(str(model), config.policy.dtype, device_of(config)), tokenizer)


def device_of(config: Config) -> str:
    return "cuda" if config.run.device != "cpu" and torch.cuda.is_available() else "cpu"


def encoded(
    policy: AssessedPolicy, prompts: Sequence[Prompt], texts_B: Sequence[str]
) -> tuple[list[Query], Trajectories]:
    """Texts as the trajectories that a policy would have written, each with its end token: N = B, K = 1."""
    queries, tokenizer, filler = _queries(policy, prompts), policy.tokenizer, padding_id(*policy)
    pairs = zip(prompts, texts_B, strict=True)
    responses = [[*answer_ids(tokenizer, prompt, text), tokenizer.eos_token_id] for prompt, text in pairs]
    prompt_ids_NP, prompt_mask_NP = pad([q.ids for q in queries], filler, "left")
    ids_NR, mask_NR = pad(responses, filler, "right")
    t = Trajectories(
        prompt_ids_NP, prompt_mask_NP, ids_NR[:, None], mask_NR[:, None],
        torch.zeros(ids_NR[:, None].shape), torch.ones(len(queries), 1, dtype=torch.bool),
    )  # fmt: skip
    return queries, t.to(policy.model.device)


def _queries(policy: AssessedPolicy, prompts: Sequence[Prompt]) -> list[Query]:
    return [Query(prompt, prompt_ids(prompt, policy.tokenizer)) for prompt in prompts]
