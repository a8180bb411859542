"""One worker's models, data and state of a run: what Algorithm 1 is given, and what is asked of it on the way."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from r2m.alarm.signals import HiddenDistance, text_drift
from r2m.algorithm import Round, train
from r2m.config import Config
from r2m.core.schedule import omega
from r2m.core.seeds import generator
from r2m.core.trajectories import Trajectories
from r2m.models.loading import load_tokenizer
from r2m.models.saving import check_savable, save_model
from r2m.policy.build import build_policy, build_sampler
from r2m.policy.forward import hidden_width
from r2m.policy.output import padding_id
from r2m.policy.policy import states_of
from r2m.policy.queries import Query, response_texts, token_ids
from r2m.policy.state import module_tensors, optimizer_tensors, restore_module, restore_optimizer
from r2m.policy.vllm_sampler import StartEngine
from r2m.reward.anchor import Anchor
from r2m.reward.build import build_reward
from r2m.reward.ensemble import EnsembleReward
from r2m.reward.labels import LabelledReward
from r2m.reward.loading import save_feedback_head
from r2m.reward.reshaped import reshaped
from r2m.reward.reward import Scored
from r2m.reward.scoring import RewardEmbedder
from r2m.round_metrics import gold_metrics, peak_mib
from r2m.tasks.load import load_task
from r2m.tasks.pairs import original_pairs
from r2m.tasks.prompt import prompt_ids
from r2m.training import checkpoint
from r2m.training.frozen import frozen, members, training_precision
from r2m.training.held_out import Evaluation, Scorer, frozen_judge, held_out_columns, wins
from r2m.training.query_order import query_indices
from r2m.workers import Workers


class Trainer:
    def __init__(
        self, config: Config, models: tuple[str, str], workers: Workers, device: torch.device | str = "cpu",
        start_engine: StartEngine | None = None,
    ) -> None:  # fmt: skip
        """`models`: the policy's and the reward model's folder or hub id. `start_engine`: for rollout.engine=vllm."""
        policy_path, reward_path = models
        a, r = config.algorithm, config.reward
        torch.manual_seed(config.run.seed)
        self.config, self.models, self.workers = config, models, workers
        self.tokenizer = load_tokenizer(policy_path)
        self.policy = build_policy(policy_path, config.policy, a, workers, device, config.run.seed)
        self.reward_tokenizer = load_tokenizer(reward_path, "reward.model")
        self.reward_model, head = frozen(config, reward_path, r.dtype, "reward.model", device)
        self.scorer = RewardEmbedder(self.reward_model, self.reward_tokenizer, self.tokenizer, a.microbatch)
        width = 0
        if r.feedback:
            with self.policy.whole() as model:
                width = hidden_width(model)
        self.reward, self.head, self.head_descent = build_reward(config, self.scorer, head, width, workers, device)
        feedback = self.reward
        if r.ensemble != "none":
            self.reward = EnsembleReward(self.reward, members(config, reward_path, self.tokenizer, device), r)
        task = load_task(config.task, self.tokenizer)
        self.gold_program, self.measures = task.gold, task.measures
        self.train_queries = [Query(p, prompt_ids(p, self.tokenizer)) for p in task.train]
        held_out = [Query(p, prompt_ids(p, self.tokenizer)) for p in task.held_out[: config.run.eval_queries]]
        whole = len(held_out) - len(held_out) % workers.size
        self.held_out = [held_out[i] for i in workers.own(whole)]
        longest_prompt = max(len(query.ids) for query in (*self.train_queries, *self.held_out))
        self.incidents: list[str] = []  # that the run has survived, until somebody takes them
        self.sampler = build_sampler(
            self.policy, self.tokenizer, config, workers, start_engine=start_engine, told=self.incidents.append,
            longest_prompt=longest_prompt,
        )  # fmt: skip
        keep = "cpu" if config.run.hidden_on_host else self.policy.device
        self._pairs_of: Callable[[int], Scored] | None = None
        if r.anchor:
            self.anchor = Anchor(
                original_pairs(config, reward_path), self.tokenizer, self.scorer, in_round=a.queries,
                filler=padding_id(self.policy.model, self.tokenizer), prompt_tokens=longest_prompt,
                response_tokens=a.max_response_tokens, seed=config.run.seed, workers=workers,
            )  # fmt: skip
            self._pairs_of = lambda step: self.anchor.scored(step, self.policy, feedback, a, keep)
        self.reward = self.proxy = reshaped(
            self.reward, r, self.scorer, training_precision(config, reward_path, self.reward_model.width, device),
            lambda queries: self.sampler.references(queries, r.par_references),
            lambda t: states_of(self.policy, t, a, keep), workers,
        )  # fmt: skip
        self._judge: Scorer | None = self.gold if self.gold_program is not None else None
        if config.run.judge is not None:
            judge, _ = frozen(config, config.run.judge, "float32", "run.judge", device)
            judge_tokenizer = load_tokenizer(config.run.judge, "run.judge")
            self._judge = frozen_judge(RewardEmbedder(judge, judge_tokenizer, self.tokenizer, a.microbatch))
        if r.labels:
            assert self._judge is not None  # Config has seen to it
            self.reward = LabelledReward(self.reward, self._judge, r, workers)
        self._rival: Trajectories | None = None  # the reference's responses to the held-out prompts
        self._rival_N1 = torch.empty(0)  # what the judge gives them

    def rounds(self, first_step: int) -> Iterator[Round]:
        c = self.config
        return train(
            self.policy, self.sampler, self.reward, self._queries, algorithm=c.algorithm, head=c.reward,
            first_step=first_step, workers=self.workers, hidden_device="cpu" if c.run.hidden_on_host else None,
            pairs_of=self._pairs_of,
        )  # fmt: skip

    def _queries(self, step: int) -> list[Query]:
        c = self.config
        indices = query_indices(len(self.train_queries), c.algorithm.queries, step, c.run.seed)
        return [self.train_queries[indices[i]] for i in self.workers.own(len(indices))]

    def evaluate(self, step: int) -> Evaluation:
        """Means over the held-out prompts of all workers, with the same draws whenever it is called."""
        c = self.config
        t = self.sampler.held_out(self.held_out)
        if self._rival is None:  # the reference's responses, with the same draws
            self._rival = self.sampler.held_out(self.held_out, reference=True)
            if self._judge is not None:
                self._rival_N1 = self._judge(self.held_out, self._rival)
        weight = omega(step, c.algorithm.total_rounds, c.reward.omega_min, c.reward.omega_schedule)
        H_N1D, distance = self.scorer.embed(self.held_out, t), HiddenDistance()
        columns = held_out_columns(
            self.policy, self.scorer, self.held_out, t, self.head, weight, c.algorithm, c.reward, self.workers,
            c.run.eval_seed, H_N1D, distance=distance,
            proxy=(lambda h: self.proxy.score(self.held_out, t, h, step).scores_NK) if c.reward.reshaped else None,
        )  # fmt: skip
        if self.gold_program is not None:
            columns["eval/gold"] = self.gold(self.held_out, t).squeeze(1)
        judged = None
        if self._judge is not None:
            judged_N1 = columns["eval/gold"][:, None] if c.run.judge is None else self._judge(self.held_out, t)
            columns["eval/win_rate"] = wins(judged_N1, self._rival_N1).squeeze(1)
            judged = self.workers.gather(judged_N1).squeeze(1).tolist()
        means = self.workers.gather(torch.stack(list(columns.values()), -1)).mean(0)
        metrics = dict(zip(columns, means.tolist(), strict=True))
        metrics["signal/hidden_distance"] = distance.value(self.workers)
        if self.reward_model.seen is not None:
            above_N1 = self.reward_model.phi(H_N1D).squeeze(-1) > self.reward_model.seen
            metrics["signal/above_seen"] = float(self.workers.gather(above_N1.float()).mean())
        ids = ([ids for (ids,) in token_ids(x, x.lengths_NK)] for x in (t, self._rival))
        ours, theirs = zip(*self.workers.gather_rows(list(zip(*ids, strict=True))), strict=True)
        metrics["signal/text_drift"] = text_drift(ours, theirs, generator("text drift", c.run.eval_seed, 0))
        texts, rivals = (response_texts(self.tokenizer, self.held_out, x) for x in (t, self._rival))
        proxies = columns["eval/proxy"].tolist()
        said = [
            {"prompt": query.prompt.shown, "response": text, "reference": rival, "proxy": proxy}
            for query, text, rival, proxy in zip(self.held_out, texts, rivals, proxies, strict=True)
        ]
        return Evaluation(metrics, judged, self.workers.gather_rows(said))

    def gold(self, queries: Sequence[Query], t: Trajectories) -> Tensor:
        assert self.gold_program is not None
        K = t.ended_NK.shape[1]
        prompts = [q.prompt for q in queries for _ in range(K)]
        texts = response_texts(self.tokenizer, queries, t)
        return torch.tensor(self.gold_program(prompts, texts), device=t.ended_NK.device).view(-1, K)

    def observe(self, r: Round) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """The task's own metrics of a round, and some of its texts."""
        metrics: dict[str, float] = {}
        K = r.scores_NK.shape[1]
        texts = response_texts(self.tokenizer, r.queries, r.trajectories)
        distinct = [len(set(texts[i : i + K])) / K for i in range(0, len(texts), K)]
        prompts = [q.prompt for q in r.queries for _ in range(K)]
        gold_NK = None
        if self.gold_program is not None:
            gold_NK = self.gold(r.queries, r.trajectories)
            metrics |= gold_metrics(gold_NK, r.scores_NK, r.vanilla_NK, self.workers)
        if self.measures is not None:
            # Of all workers' texts: a ratio's mean over workers is not the ratio.
            everything = self.workers.gather_all(list(zip(prompts, texts, strict=True)))
            measured = self.measures(*zip(*everything, strict=True))
            metrics |= {f"task/{name}": value for name, value in measured.items()}
        unique_share = torch.tensor(sum(distinct) / len(distinct), dtype=torch.float64)
        metrics["rollout/unique_share"] = float(self.workers.sum(unique_share)) / self.workers.size
        metrics["memory/peak_mib"] = peak_mib(self.policy.device)
        count = min(self.config.run.samples, len(texts))
        every = len(texts) // count
        samples = [
            {
                "prompt": prompts[i].shown,
                "response": texts[i],
                "proxy": float(r.scores_NK.flatten()[i]),
                "vanilla": float(r.vanilla_NK.flatten()[i]),
            } | ({"gold": float(gold_NK.flatten()[i])} if gold_NK is not None else {})
            for i in range(0, count * every, every)
        ]  # fmt: skip
        return metrics, samples

    def save(self, folder: Path, step: int) -> None:
        """A checkpoint after `step` rounds: everything that the next round depends on. All workers call it."""
        tensors = self.policy.state()
        if self.workers.rank == 0:
            tensors |= {"torch_rng": torch.get_rng_state()}
            if self.head is not None:
                tensors |= module_tensors("head", self.head)
            if self.head_descent is not None:
                tensors |= optimizer_tensors("head_optimizer", self.head_descent.optimizer)
        c = self.config
        facts = {
            "total_rounds": c.algorithm.total_rounds,  # the horizon of ω
            "cursor": step * c.algorithm.queries,  # queries taken from the data
            "seed": c.run.seed,  # with the step, the state of the sampler and of the data order
            "config_hash": c.digest(),
        }
        checkpoint.save_checkpoint(folder, step, tensors, facts, c.run.keep_checkpoints, self.workers)

    def restore(self, folder: Path, refused: Callable[[str], None]) -> int:
        """Load the newest whole checkpoint. Returns the step after which it was written, 0 where there is none."""
        state = checkpoint.newest_whole(folder, refused, self.config.digest(), self.workers)
        if state is None:
            return 0
        shared, own, facts = state
        self.policy.restore(own)
        if self.head is not None:
            restore_module("head", self.head, shared)
        if self.head_descent is not None:
            restore_optimizer("head_optimizer", self.head_descent.optimizer, shared)
        torch.set_rng_state(shared["torch_rng"])
        self.sampler.weights_changed(int(facts["step"]))
        return int(facts["step"])

    def check_export(self, folder: Path) -> None:
        """Raises UnsavableError where `export` would fail after the last round; the trial leaves nothing behind."""
        policy, reward = self.models
        with self.policy.whole() as model:
            check_savable(model, self.tokenizer, folder, f"policy.model = {policy!r}")
        with self.reward_model.whole() as model:
            check_savable(model, self.reward_tokenizer, folder, f"reward.model = {reward!r}")

    def export(self, folder: Path) -> None:
        """The trained policy, and the reward model with its head beside it, as Hugging Face folders, which rank 0
        writes. All workers call it."""
        self.policy.export(folder / "policy", self.tokenizer)
        with self.reward_model.whole() as model:
            if self.workers.rank == 0:
                save_model(folder / "reward", model, self.reward_tokenizer)
        if self.workers.rank == 0 and self.head is not None:
            save_feedback_head(folder / "reward", self.head)
