"""Algorithm 1 against a slow reference, and what a round must and must not depend on.

Axes: N queries, K responses, B = N K trajectories, R response tokens, S inputs that predict, D width, H heads of
width W.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean as mean

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from r2m.algorithm import Round
from r2m.config import Config
from r2m.core.feedback_head import FeedbackHead
from r2m.core.trajectories import Trajectories
from r2m.policy.queries import Query
from r2m.policy.sampling import Sampled
from r2m.reward.labels import LabelledReward
from r2m.reward.reward import FeedbackReward
from r2m.training.trainer import Trainer
from r2m.workers import Workers

MakeTrainer = Callable[..., Trainer]

KL_IN_REWARD = ("algorithm.kl_placement=reward", "algorithm.kl_estimator=k1", "algorithm.beta=0.5")
STEPS = ("algorithm.minibatches=2", "reward.epochs=2", "reward.minibatches=2")


def strengthen(trainer: Trainer) -> Trainer:
    """A feedback that is as large as what it is added to: untrained it is 2 % of that."""
    if trainer.head is not None:
        with torch.no_grad():
            trainer.head.output.weight *= 30
    return trainer


class Given:
    """A sampler of trajectories that are there already."""

    def __init__(self, t: Trajectories) -> None:
        self.t = t

    def __call__(self, queries: Sequence[Query], step: int) -> Sampled:
        return Sampled(self.t, None)

    def held_out(self, queries: Sequence[Query], *, reference: bool = False) -> Trajectories:
        return self.t

    def references(self, queries: Sequence[Query], K: int) -> Trajectories:
        return self.t

    def weights_changed(self, step: int) -> None:
        pass


def weights(trainer: Trainer) -> dict[str, Tensor]:
    modules = {"policy": trainer.policy.model} | ({"head": trainer.head} if trainer.head is not None else {})
    return {
        f"{m}.{name}": p.detach().clone() for m, module in modules.items() for name, p in module.named_parameters()
    }


def assert_same_weights(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=tolerance, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


def steady(metrics: dict[str, float]) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if k.split("/")[0] not in ("time", "speed", "memory")}


class SlowRound:
    """A round as the paper writes it: one trajectory at a time, each prompt anew, explicit keys and values."""

    def __init__(self, config: Config, models: tuple[str, str], head: FeedbackHead | None) -> None:
        a, r = config.algorithm, config.reward
        self.a, self.r = a, r
        self.policy = AutoModelForCausalLM.from_pretrained(models[0]).eval()
        self.reference = AutoModelForCausalLM.from_pretrained(models[0]).eval()
        self.classifier = AutoModelForSequenceClassification.from_pretrained(models[1]).eval()
        self.head = copy.deepcopy(head)
        self.optimizer = torch.optim.AdamW(
            self.policy.parameters(), a.lr, eps=a.adam_eps, weight_decay=a.weight_decay
        )
        if self.head is not None:
            self.head_optimizer = torch.optim.AdamW(self.head.parameters(), r.lr, eps=a.adam_eps, weight_decay=0.0)

    def log_probs(self, model: nn.Module, prompt: list[int], response: list[int]) -> tuple[Tensor, Tensor]:
        """log π of a response's tokens, and h_SD."""
        out = model(torch.tensor([prompt + response]), output_hidden_states=True)
        rows = (out.logits[0, len(prompt) - 1 : -1] / self.a.temperature).log_softmax(-1)
        return rows[range(len(response)), response], out.hidden_states[-1][0, :-1]

    def H(self, prompt: list[int], response: list[int]) -> Tensor:
        with torch.no_grad():
            return self.classifier.model(torch.tensor([prompt + response])).last_hidden_state[0, -1]

    def feedback_score(self, H_D: Tensor, h_SD: Tensor, omega: float) -> Tensor:
        head = self.head
        assert head is not None
        query_HW = head.query(H_D).view(head.num_heads, -1)
        key_SHW = head.key(h_SD).view(len(h_SD), head.num_heads, -1)
        value_SHW = head.value(h_SD).view(len(h_SD), head.num_heads, -1)
        attention_SH = ((key_SHW * query_HW).sum(-1) / math.sqrt(query_HW.shape[-1])).softmax(0)
        attended_D = head.output((attention_SH[..., None] * value_SHW).sum(0).flatten())
        return head.score(omega * H_D + (1 - omega) * (self.r.residual * H_D + attended_D)).squeeze()

    def run(
        self, step: int, prompts: Sequence[list[int]], responses: Sequence[list[list[int]]], told: list[list[float]],
        pairs: Sequence[tuple[list[int], list[list[int]]]] = (),
    ) -> list[list[float]]:  # fmt: skip
        """Train on these trajectories; the scores that the policy was trained on. `told`: a judge's labels;
        `pairs`: original ones, prompts with the chosen and the rejected response."""
        a, r = self.a, self.r
        N, K = len(prompts), a.responses
        omega = max(0.5 * math.cos(math.pi * step / a.total_rounds) + 0.5, r.omega_min)
        flat = [(n, k) for n in range(N) for k in range(K)]
        eos = self.policy.config.eos_token_id
        H, h, old, ref = {}, {}, {}, {}
        scores: list[list[float]] = [[0.0] * K for _ in range(N)]
        with torch.no_grad():
            for n, k in flat:
                x, y = prompts[n], responses[n][k]
                H[n, k] = self.H(x, y)
                old[n, k], h[n, k] = self.log_probs(self.policy, x, y)
                ref[n, k], _ = self.log_probs(self.reference, x, y)
                if self.head is not None:
                    score = self.feedback_score(H[n, k], h[n, k], omega)
                else:
                    score = self.classifier.score(H[n, k]).squeeze() - self.classifier.config.reward_mean
                scores[n][k] = float(score) if y[-1] == eos or r.no_eos == "keep" else r.no_eos_value
        to_go = {  # of each token: the score, and the KL (k1) that is still to come where it is in the reward
            (n, k): torch.tensor([
                scores[n][k] - (a.kl_placement == "reward") * a.beta * float((old[n, k] - ref[n, k])[i:].sum())
                for i in range(len(responses[n][k]))
            ])
            for n, k in flat
        }  # fmt: skip
        greedy = [self.greedy_score(x, omega) for x in prompts] if a.advantage == "remax" else None
        advantage = self.advantages(to_go, N, K, greedy)

        losses, norms, clipped_terms, head_norms, bts, gres = ([] for _ in range(6))  # type: ignore[var-annotated]
        for _ in range(a.epochs):
            for part in range(a.minibatches):
                size = N // a.minibatches
                batch = [(n, k) for n, k in flat if n // size == part]
                loss = torch.zeros(())
                for n, k in batch:
                    log_probs, hidden = self.log_probs(self.policy, prompts[n], responses[n][k])
                    h[n, k] = hidden.detach()  # the last of these writes are those of the final epoch
                    ratio = torch.exp(log_probs - old[n, k])
                    if a.ratio_level == "sequence":
                        ratio = ratio.prod()
                    clipped = ratio.clip(1 - a.clip_low, 1 + a.clip_high)
                    A = advantage[n, k]
                    lost = ((ratio - clipped) * A > 0) & (A.abs() > 1e-6)  # a group of equals has no advantage
                    clipped_terms += lost.flatten().tolist()
                    gain = torch.minimum(ratio * advantage[n, k], clipped * advantage[n, k]).sum()
                    kl = torch.zeros(())
                    if a.kl_placement == "loss":
                        d = ref[n, k] - log_probs
                        kl = (d.exp() - d - 1).sum()  # k3
                    loss = loss - (gain - a.beta * kl) / len(batch)
                loss.backward()
                losses.append(loss.item())
                norms.append(self.step(self.policy, self.optimizer))

        originals = []
        if self.head is not None:
            for _ in range(r.epochs):
                for part in range(r.minibatches):
                    first = part * N // r.minibatches
                    size = (r.labels or N) // r.minibatches  # groups that it learns from
                    loss = torch.zeros(())
                    for n in range(first, first + size):
                        now = torch.stack([self.feedback_score(H[n, k], h[n, k], omega) for k in range(K)])
                        by = told[n] if r.labels else scores[n]
                        best, worst = by.index(max(by)), by.index(min(by))
                        bt = -torch.log(torch.sigmoid(now[best] - now[worst]))
                        p = torch.softmax((now - now.mean()) / now.std(correction=0), 0)
                        entropy = -(p * p.log()).sum()
                        bts.append(bt.item())
                        gres.append(entropy.item())
                        loss = loss + (1 - r.anchor) * ((1 - r.alpha) * bt + r.alpha * entropy) / size
                    few = len(pairs) // r.minibatches
                    for x, both in pairs[part * few : (part + 1) * few]:
                        with torch.no_grad():
                            read = [(self.H(x, y), self.log_probs(self.policy, x, y)[1]) for y in both]
                        chosen, rejected = (self.feedback_score(*each, omega) for each in read)
                        original = -torch.log(torch.sigmoid(chosen - rejected))
                        originals.append(original.item())
                        loss = loss + r.anchor * original / few
                    loss.backward()
                    head_norms.append(self.step(self.head, self.head_optimizer))
        self.metrics = {
            "train/policy_loss": mean(losses), "train/grad_norm": mean(norms),
            "train/clip_fraction": mean(clipped_terms), "train/lr": a.lr,
        }  # fmt: skip
        if self.head is not None:
            bt, gre = mean(bts), mean(gres)
            self.metrics |= {
                "head/bt": bt, "head/gre": gre, "head/loss": (1 - r.alpha) * bt + r.alpha * gre,
                "head/grad_norm": mean(head_norms), "head/omega": omega,
            }  # fmt: skip
            if originals:
                loss = (1 - r.anchor) * self.metrics["head/loss"] + r.anchor * mean(originals)
                self.metrics |= {"head/anchor": mean(originals), "head/loss": loss}
        return scores

    def greedy_score(self, prompt: list[int], omega: float) -> float:
        """The score of the likeliest token again and again, each from the whole sequence anew."""
        response: list[int] = []
        with torch.no_grad():
            while len(response) < self.a.max_response_tokens:
                response.append(int(self.policy(torch.tensor([prompt + response])).logits[0, -1].argmax()))
                if response[-1] == self.policy.config.eos_token_id:
                    break
            if self.r.no_eos != "keep" and response[-1] != self.policy.config.eos_token_id:
                return self.r.no_eos_value
            H_D = self.H(prompt, response)
            if self.head is not None:
                return float(self.feedback_score(H_D, self.log_probs(self.policy, prompt, response)[1], omega))
            return float(self.classifier.score(H_D).squeeze() - self.classifier.config.reward_mean)

    def advantages(
        self, to_go: dict[tuple[int, int], Tensor], N: int, K: int, greedy: list[float] | None
    ) -> dict[tuple[int, int], Tensor]:
        """One value a response, or one a token."""
        name = self.a.advantage
        if greedy is not None:
            return {(n, k): v - greedy[n] for (n, k), v in to_go.items()}
        if name == "reinforce_pp":
            every = torch.cat(list(to_go.values()))
            return {at: (v - every.mean()) / every.std() for at, v in to_go.items()}
        out: dict[tuple[int, int], Tensor] = {}
        for n in range(N):
            row = torch.stack([to_go[n, k][0] for k in range(K)])
            for k in range(K):
                if name == "rloo":
                    out[n, k] = row[k] - (row.sum() - row[k]) / (K - 1)
                elif name == "grpo":
                    out[n, k] = (row[k] - row.mean()) / (row.std() + 1e-4)
                else:
                    out[n, k] = row[k] - row.mean()
        if name == "reinforce_pp_baseline":
            every = torch.cat([out[at].expand(len(to_go[at])) for at in to_go])
            out = {at: (v - every.mean()) / every.std() for at, v in out.items()}
        return out

    def step(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> float:
        norm = nn.utils.clip_grad_norm_(module.parameters(), self.a.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return float(norm)


def sum_of_ids(queries: Sequence[Query], t: Trajectories) -> Tensor:
    """A judge's labels that are an order."""
    return (t.response_ids_NKR * t.response_mask_NKR).sum(-1)


def tokens(r: Round) -> tuple[list[list[int]], list[list[list[int]]]]:
    """The prompts' and the responses' ids, as lists without padding."""
    return tokens_of(r.queries, r.trajectories)


def tokens_of(queries: Sequence[Query], t: Trajectories) -> tuple[list[list[int]], list[list[list[int]]]]:
    lengths = t.lengths_NK.tolist()
    responses = [
        [ids[:length] for ids, length in zip(group, row, strict=True)]
        for group, row in zip(t.response_ids_NKR.tolist(), lengths, strict=True)
    ]
    return [query.ids for query in queries], responses


@pytest.mark.parametrize(
    "overrides",
    [
        ("reward.feedback=on",),
        ("reward.feedback=off",),
        ("reward.feedback=on", "algorithm.ratio_level=sequence", "reward.omega_min=0.9", "reward.alpha=0.2"),
        ("reward.feedback=off", *KL_IN_REWARD),
        ("reward.residual=off", "reward.head_gain=0.1"),
        ("reward.labels=2",),
        ("reward.anchor=0.3",),
        ("algorithm.advantage=grpo",),
        ("algorithm.advantage=remax", "reward.no_eos=keep"),  # else greedy responses, without an end, all get -1
        ("algorithm.advantage=remax", "reward.feedback=off", *KL_IN_REWARD),
        ("algorithm.advantage=reinforce_pp", *KL_IN_REWARD),
        ("algorithm.advantage=reinforce_pp", "reward.feedback=off"),
        ("algorithm.advantage=reinforce_pp_baseline",),
    ],
    ids=[
        "r2m", "rloo", "r2m, sequence ratios", "rloo, KL in the reward", "r2m, no residual", "r2m, labels",
        "r2m, anchored", "r2m + grpo", "r2m + remax", "remax, KL in the reward",
        "r2m + reinforce++, KL in the reward", "reinforce++", "r2m + reinforce++-baseline",
    ],
)  # fmt: skip
def test_a_round_is_the_papers(
    make_trainer: MakeTrainer, forum_models: tuple[str, str], overrides: tuple[str, ...]
) -> None:
    trainer = strengthen(make_trainer(*STEPS, *overrides))
    before = weights(trainer)
    slow = SlowRound(trainer.config, forum_models, trainer.head)
    if isinstance(trainer.reward, LabelledReward):  # to gold, these responses are all alike
        trainer.reward._judge = sum_of_ids
    rounds = trainer.rounds(1)
    for step in (1, 2):  # in the second the policy is no longer the reference
        r = next(rounds)
        pairs = ()
        if trainer.config.reward.anchor:
            pairs = list(zip(*tokens_of(*trainer.anchor.of_round(step, "cpu")), strict=True))
        scores = slow.run(step, *tokens(r), sum_of_ids(r.queries, r.trajectories).tolist(), pairs)
        torch.testing.assert_close(r.scores_NK, torch.tensor(scores), atol=1e-5, rtol=1e-5)
        told = {key: r.metrics[key] for key in slow.metrics}
        assert told == pytest.approx(slow.metrics, rel=1e-4, abs=1e-5)
    moved = max(float((w - before[name]).abs().max()) for name, w in weights(trainer).items())
    assert moved > 1e-3  # a hundred times the tolerance
    for module, expected in [(trainer.policy.model, slow.policy), (trainer.head, slow.head)]:
        if module is not None and expected is not None:
            for (name, p), q in zip(module.named_parameters(), expected.parameters(), strict=True):
                torch.testing.assert_close(p, q, atol=1e-5, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


def test_rloo_is_r2m_without_the_feedback_lines(make_trainer: MakeTrainer) -> None:
    """With Ω = 1 the scores are the vanilla model's in the first round, so the policy moves as under RLOO."""
    r2m, rloo = (make_trainer(f"reward.feedback={on}", "reward.omega_min=1") for on in ("on", "off"))
    with_feedback, without = next(r2m.rounds(1)), next(rloo.rounds(1))
    assert with_feedback.metrics["head/omega"] == 1
    assert not any(key.startswith("head/") for key in without.metrics)
    torch.testing.assert_close(with_feedback.scores_NK, with_feedback.vanilla_NK, atol=1e-6, rtol=0)
    torch.testing.assert_close(without.scores_NK, without.vanilla_NK, atol=0, rtol=0)
    policy = {k: v for k, v in weights(r2m).items() if k.startswith("policy")}
    assert_same_weights(policy, weights(rloo), 1e-6)


def test_at_omega_1_only_the_score_layer_learns(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("reward.omega_min=1")
    before = weights(trainer)
    for r in trainer.rounds(1):
        assert r.metrics["head/omega"] == 1
    after = weights(trainer)
    # Its bias has a gradient of rounding errors alone: both losses are of differences of scores.
    changed = {name for name in after if (after[name] - before[name]).abs().max() > 1e-6}
    assert {name for name in changed if name.startswith("head")} == {"head.score.weight"}


class TestAblations:
    """Table 5's arms are settings: each differs from R2M in what it leaves out, and in nothing before that acts."""

    def test_noise_has_the_place_of_the_hidden_states(self, make_trainer: MakeTrainer) -> None:
        r2m = strengthen(make_trainer())
        noise, again = (strengthen(make_trainer("reward.hidden=noise")) for _ in range(2))
        a, b, c = (next(trainer.rounds(1)) for trainer in (r2m, noise, again))
        ended = a.trajectories.ended_NK
        assert torch.equal(a.trajectories.response_ids_NKR, b.trajectories.response_ids_NKR)
        torch.testing.assert_close(a.vanilla_NK, b.vanilla_NK)
        assert ((a.scores_NK - b.scores_NK).abs()[ended] > 1e-4).all()
        assert torch.equal(b.scores_NK, c.scores_NK)
        assert_same_weights(weights(noise), weights(again), 0)

    def test_the_head_learns_from_the_noise_that_it_scored_with(self, make_trainer: MakeTrainer) -> None:
        """So its first loss is that of the scores, whatever the policy's states have become."""
        r = next(strengthen(make_trainer("reward.hidden=noise", "reward.no_eos=keep")).rounds(1))
        gap_N = r.scores_NK.max(-1).values - r.scores_NK.min(-1).values
        assert r.metrics["head/bt"] == pytest.approx(float(torch.log1p((-gap_N).exp()).mean()), abs=1e-6)

    def test_noise_is_new_in_each_round_and_in_each_seed(self, make_trainer: MakeTrainer) -> None:
        """Round 2 taken alone, with the weights of round 1, reads other noise."""
        scores = []
        for first, seed in ((1, 0), (2, 0), (1, 1)):
            trainer = strengthen(make_trainer("reward.hidden=noise", "reward.omega_schedule=constant"))
            fixed = next(make_trainer().rounds(1)).trajectories
            queries = trainer._queries(1)
            trainer._queries = lambda step, queries=queries: queries  # type: ignore[method-assign]
            trainer.sampler = Given(fixed)
            assert trainer.head is not None
            trainer.reward = FeedbackReward(
                trainer.scorer, trainer.config.reward, trainer.head, trainer.head_descent, total_rounds=4,
                microbatch=16, workers=Workers(), seed=seed,
            )  # fmt: skip
            scores.append(next(trainer.rounds(first)).scores_NK)
        ended = fixed.ended_NK
        for other in scores[1:]:
            assert ((scores[0] - other).abs()[ended] > 1e-5).all()

    def test_without_training_the_head_stays(self, make_trainer: MakeTrainer) -> None:
        trainer = make_trainer("reward.train_head=off")
        before = weights(trainer)
        for r in trainer.rounds(1):
            assert {key for key in r.metrics if key.startswith("head/")} == {"head/omega"}
        after = weights(trainer)
        assert all(torch.equal(after[n], before[n]) for n in after if n.startswith("head"))
        assert not all(torch.equal(after[n], before[n]) for n in after if n.startswith("policy"))
        assert (r.scores_NK != r.vanilla_NK)[r.trajectories.ended_NK].all()  # it has feedback all the same

    @pytest.mark.parametrize(("alpha", "kept"), [(0, "head/bt"), (1, "head/gre")])
    def test_one_loss_alone(self, make_trainer: MakeTrainer, alpha: int, kept: str) -> None:
        metrics = next(make_trainer(f"reward.alpha={alpha}").rounds(1)).metrics
        assert metrics["head/loss"] == pytest.approx(metrics[kept])

    def test_a_fixed_omega_is_the_minimum_in_every_round(self, make_trainer: MakeTrainer) -> None:
        trainer = make_trainer("reward.omega_schedule=constant", "reward.omega_min=0.3")
        assert [r.metrics["head/omega"] for r in trainer.rounds(1)] == [0.3] * 4
        assert trainer.head is not None

    def test_sft_trains_nothing_and_samples_all_the_same(self, make_trainer: MakeTrainer) -> None:
        sft, rloo = (make_trainer("reward.feedback=off", f"algorithm.epochs={k}") for k in (0, 2))
        before = weights(sft)
        rounds = list(sft.rounds(1))
        assert_same_weights(before, weights(sft), 0)
        assert len(rounds) == 4
        assert all(r.metrics["kl/sequence"] == 0 for r in rounds)
        first, trained = rounds[0].metrics, next(rloo.rounds(1)).metrics
        assert steady(first).items() <= steady(trained).items()
        assert set(trained) - set(first) == {
            f"train/{name}"
            for name in ("policy_loss", "clip_fraction", "ratio_error_first_minibatch", "grad_norm", "lr")
        }


class TestReMax:
    def test_greedy_responses_are_reported_and_not_trained_on(self, make_trainer: MakeTrainer) -> None:
        off = ("reward.feedback=off", "algorithm.microbatch=2")
        remax, rloo = (next(make_trainer(f"algorithm.advantage={e}", *off).rounds(1)) for e in ("remax", "rloo"))
        assert torch.equal(remax.trajectories.response_ids_NKR, rloo.trajectories.response_ids_NKR)
        assert set(remax.metrics) - set(rloo.metrics) == {"reward/greedy", "rollout/greedy_tokens"}
        assert 1 <= remax.metrics["rollout/greedy_tokens"] <= 8
        assert steady(remax.metrics)["kl/sequence"] == steady(rloo.metrics)["kl/sequence"]


@pytest.mark.parametrize(
    "overrides",
    [
        ("algorithm.microbatch=1", "algorithm.sample_batch=1"),
        ("algorithm.microbatch=2", "algorithm.sample_batch=4"),
        ("algorithm.microbatch=4", "algorithm.sample_batch=100", "run.hidden_on_host=true"),
    ],
)
@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean_token_sum", "sequence_mean_token_mean"])
def test_how_a_round_is_cut_up_does_not_matter(
    make_trainer: MakeTrainer, aggregation: str, overrides: tuple[str, ...]
) -> None:
    shared = (f"algorithm.loss_aggregation={aggregation}", "algorithm.rounds=2")
    whole = strengthen(make_trainer(*shared, "algorithm.microbatch=16", "algorithm.sample_batch=16"))
    cut = strengthen(make_trainer(*shared, *overrides))
    for a, b in zip(whole.rounds(1), cut.rounds(1), strict=True):
        assert torch.equal(a.trajectories.response_ids_NKR, b.trajectories.response_ids_NKR)
        assert steady(a.metrics) == pytest.approx(steady(b.metrics), rel=1e-5, abs=2e-5)
    assert_same_weights(weights(whole), weights(cut))


def test_a_round_in_bfloat16_is_that_of_fp32_as_far_as_its_digits_go(make_trainer: MakeTrainer) -> None:
    """Of the same trajectories. bfloat16 has 8 bits: 0.4 % of a number, and of a score or a step a few times that."""
    low = ("policy.dtype=bfloat16", "reward.dtype=bfloat16")
    fp32, bf16 = (strengthen(make_trainer("algorithm.lr=1e-2", "reward.no_eos=keep", *dtype)) for dtype in ((), low))
    before = weights(fp32), weights(bf16)
    a = next(fp32.rounds(1))
    bf16.sampler = Given(a.trajectories)
    b = next(bf16.rounds(1))

    assert bf16.head is not None
    assert {p.dtype for p in (*bf16.policy.model.parameters(), *bf16.policy.reference_model.parameters())} == {
        torch.bfloat16
    }
    assert {p.dtype for p in bf16.reward_model.model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in bf16.head.parameters()} == {torch.float32}  # what is trained of the reward model
    assert b.scores_NK.dtype == torch.float32
    assert all(math.isfinite(value) for value in b.metrics.values())
    assert b.metrics.keys() == a.metrics.keys()

    for low_NK, full_NK in ((b.scores_NK, a.scores_NK), (b.vanilla_NK, a.vanilla_NK)):
        off = (low_NK - full_NK).abs().max() / full_NK.std()
        assert 1e-5 < off < 0.05  # in bfloat16, and right
    errors = {
        "rollout/log_prob_error": 0.3, "rollout/log_prob_error_mean": 0.05, "train/ratio_error_first_minibatch": 0.05,
    }  # fmt: skip
    for key, value in steady(a.metrics).items():
        if key in errors:
            assert b.metrics[key] < errors[key]
        else:
            assert b.metrics[key] == pytest.approx(value, rel=0.05), key
    assert b.metrics["rollout/log_prob_error"] > 1e-3  # these trajectories were sampled in fp32
    after = weights(fp32), weights(bf16)
    for part in ("policy", "head"):
        full, rounded = (
            torch.cat([(w[name] - v[name]).float().flatten() for name in v if name.startswith(part)])
            for v, w in zip(before, after, strict=True)
        )
        assert torch.cosine_similarity(rounded, full, dim=0) > 0.97
        assert float(rounded.norm()) == pytest.approx(float(full.norm()), rel=0.03)


class TestAlarms:
    """What a round reports of its own health."""

    def test_the_first_minibatch_has_ratio_1_clips_nothing_and_loss_0(self, make_trainer: MakeTrainer) -> None:
        """The loss is minus the sum of advantages there: 0 for a group where the lengths are equal or, as here,
        by sequence. In the first round the KL is 0 too."""
        first = ("algorithm.epochs=1", "algorithm.ratio_level=sequence", "algorithm.temperature=1.3")
        r = next(make_trainer(*first).rounds(1))
        assert r.metrics["train/ratio_error_first_minibatch"] < 1e-5
        assert r.metrics["train/clip_fraction"] == 0
        assert abs(r.metrics["train/policy_loss"]) < 1e-5
        assert r.metrics["kl/sequence"] == 0
        assert r.metrics["rollout/log_prob_error"] < 1e-4
        assert r.metrics["train/advantage_std"] > 0.1

    def test_in_every_round(self, make_trainer: MakeTrainer) -> None:
        for r in make_trainer("algorithm.minibatches=2").rounds(1):
            assert r.metrics["train/ratio_error_first_minibatch"] < 1e-5
            assert r.metrics["rollout/log_prob_error"] < 1e-4
        assert r.metrics["train/clip_fraction"] > 0  # of the steps after the first
        assert r.metrics["kl/sequence"] != 0

    def test_a_stale_sampler_shows(self, make_trainer: MakeTrainer) -> None:
        trainer = make_trainer()
        sampler, model = trainer.sampler, trainer.policy.model
        queries = trainer._queries(1)
        fresh = copy.deepcopy(model.state_dict())
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1.01)
        trainer.sampler = Given(sampler(queries, 1).trajectories)
        model.load_state_dict(fresh)
        assert next(trainer.rounds(1)).metrics["rollout/log_prob_error"] > 0.01

    @pytest.mark.parametrize(("correction", "weight"), [("none", 1.0), ("truncated", 1.5)])
    def test_a_sampler_that_errs_weighs(self, make_trainer: MakeTrainer, correction: str, weight: float) -> None:
        """It gives every token half of the probability that it has: a weight of 2, capped at 1.5."""
        one_step = ("algorithm.epochs=1", "algorithm.beta=0", "algorithm.max_grad_norm=1e9", "reward.feedback=off")
        trainer = make_trainer(*one_step)
        t = trainer.sampler(trainer._queries(1), 1).trajectories
        exact = next(trainer.rounds(1)).metrics
        trainer = make_trainer(*one_step, f"algorithm.sampler_correction={correction}", "algorithm.sampler_cap=1.5")
        trainer.sampler = Given(replace(t, sampler_log_probs_NKR=t.sampler_log_probs_NKR - math.log(2)))
        found = next(trainer.rounds(1)).metrics
        assert found["rollout/log_prob_error_mean"] == pytest.approx(math.log(2), rel=1e-4)
        for key in ("train/policy_loss", "train/grad_norm"):
            assert abs(exact[key]) > 1e-3
            assert found[key] == pytest.approx(weight * exact[key], rel=1e-4)

    @pytest.mark.parametrize("part", ["policy", "head"])
    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_a_bad_gradient_does_not_reach_the_weights(
        self, make_trainer: MakeTrainer, part: str, bad: float
    ) -> None:
        trainer = make_trainer()
        module = trainer.policy.model if part == "policy" else trainer.head
        assert module is not None
        next(iter(module.parameters())).register_hook(lambda grad: grad * bad)
        before = {k: v for k, v in weights(trainer).items() if k.startswith(part)}
        with pytest.raises(FloatingPointError, match=r"round 1: the gradient's norm is (nan|inf); the run has"):
            next(trainer.rounds(1))
        assert_same_weights(before, {k: v for k, v in weights(trainer).items() if k.startswith(part)}, 0)


class TestSettings:
    def test_dropout_is_off(self, make_trainer: MakeTrainer) -> None:
        trainer = make_trainer()
        assert trainer.policy.model.config.attention_dropout == 0.3  # as saved: it would move every ratio
        assert not trainer.policy.model.training
        assert next(trainer.rounds(1)).metrics["train/ratio_error_first_minibatch"] < 1e-5

    def test_a_response_without_an_end_token_has_the_stated_score(self, make_trainer: MakeTrainer) -> None:
        r = next(make_trainer("reward.no_eos_value=-3").rounds(1))
        ended = r.trajectories.ended_NK
        assert 0 < ended.float().mean() < 1
        assert (r.scores_NK[~ended] == -3).all()
        assert (r.vanilla_NK[~ended] == -3).all()
        kept = next(make_trainer("reward.no_eos=keep").rounds(1))
        torch.testing.assert_close(kept.scores_NK[ended], r.scores_NK[ended])
        assert (kept.scores_NK[~ended] != -3).all()

    @pytest.mark.parametrize(("decay", "expected"), [("constant", [1, 1, 1, 1]), ("linear", [1, 0.75, 0.5, 0.25])])
    def test_lr(self, make_trainer: MakeTrainer, decay: str, expected: list[float]) -> None:
        """Linear: to 0 at the end of the last round, which is itself above 0."""
        trainer = make_trainer(f"algorithm.lr_decay={decay}", "algorithm.lr=1e-4", "reward.feedback=off")
        seen = [r.metrics["train/lr"] for r in trainer.rounds(1)]
        assert seen == pytest.approx([1e-4 * share for share in expected])
        assert trainer.policy.descent.optimizer.param_groups[0]["lr"] == seen[-1]

    def test_lr_of_a_resumed_run_goes_on(self, make_trainer: MakeTrainer) -> None:
        trainer = make_trainer("algorithm.lr_decay=linear", "reward.feedback=off")
        assert next(trainer.rounds(4)).metrics["train/lr"] == pytest.approx(0.25e-3)

    def test_omega_is_that_of_eq_3(self, make_trainer: MakeTrainer) -> None:
        """T = 4: cos(π t / 4) / 2 + 1/2, and Ω from where it is less."""
        seen = [r.metrics["head/omega"] for r in make_trainer("reward.omega_min=0.3").rounds(1)]
        assert seen == pytest.approx([0.853553, 0.5, 0.3, 0.3], abs=1e-6)

    def test_the_temperature_divides_policy_old_and_reference_alike(self, make_trainer: MakeTrainer) -> None:
        """Output weights twice as large at twice the temperature are the same policy."""
        plain, doubled = make_trainer("algorithm.temperature=0.8"), make_trainer("algorithm.temperature=1.6")
        for model in (doubled.policy.model, doubled.policy.reference_model):
            with torch.no_grad():
                model.get_output_embeddings().weight.mul_(2)
        a, b = next(plain.rounds(1)).metrics, next(doubled.rounds(1)).metrics
        for key in ("train/entropy", "kl/sequence", "train/ratio_error_first_minibatch", "reward/proxy"):
            assert a[key] == pytest.approx(b[key], rel=1e-5, abs=1e-5), key

    def test_the_reference_and_the_reward_model_never_move(self, make_trainer: MakeTrainer) -> None:
        trainer = make_trainer()
        frozen = [*trainer.policy.reference_model.parameters(), *trainer.reward_model.parameters()]
        before = [p.clone() for p in frozen]
        for _ in trainer.rounds(1):
            pass
        assert all(torch.equal(p, b) and p.grad is None for p, b in zip(frozen, before, strict=True))
