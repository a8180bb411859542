"""Algorithm 1 of the paper, top to bottom; with a reward that reads no hidden states: RLOO, or another estimator.

It talks to a policy (r2m.policy.policy), a sampler (r2m.policy.sampling), a reward (r2m.reward.reward) and an
estimator of advantages (r2m.core.advantages). Each is a border: a variant is another implementation behind it.

Axes: N queries of this worker, K responses of each, R response tokens, T = R or 1.

Where it departs from the printed algorithm, or fills it in (docs/decisions.md has the reasons):
- Eq. 3 counts rounds from 1, so the last round scores with ω = Ω.
- The preference pair of line 16 is the best and the worst by the scores that line 8 gave, or by a judge's labels.
- Lines 6 and 8 take the log-probs of π_old, the hidden states and the masks from one forward.
- A response without an end token gets a stated score, not the reward model's.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from r2m.config import Algorithm, Reward
from r2m.core.advantages import ADVANTAGES, Batch, reward_to_go
from r2m.core.policy_loss import kl_estimate, kl_in_reward, policy_loss, sampler_weight
from r2m.core.reward_loss import best_and_worst, bradley_terry, gre_bt, group_reward_entropy
from r2m.core.trajectories import Trajectories, microbatches, split
from r2m.policy.forward import HiddenStates
from r2m.policy.policy import TrainedPolicy, states_of
from r2m.policy.queries import Query
from r2m.policy.sampling import ResponseSampler
from r2m.reward.labels import taught_groups
from r2m.reward.reward import RoundReward, Scored
from r2m.round_metrics import Clock, greedy_metrics, round_metrics
from r2m.workers import Workers


class Round(NamedTuple):
    """What a round yields: metrics over all workers' trajectories, and this worker's own for a closer look."""

    step: int
    metrics: dict[str, float]
    queries: Sequence[Query]
    trajectories: Trajectories
    scores_NK: Tensor  # that trained the policy
    vanilla_NK: Tensor  # of the vanilla reward model


class Annotation(NamedTuple):
    """What forwards of the annotation phase give of a round's trajectories. Log-probs are of the sampled tokens."""

    old_NKR: Tensor  # under π_old, the policy that sampled
    ref_NKR: Tensor  # under π_ref
    entropy_NKR: Tensor  # of π_old, in nats
    hidden: HiddenStates | None  # of π_old, where the reward reads them


def train(
    policy: TrainedPolicy,
    sampler: ResponseSampler,
    reward: RoundReward,
    queries_of: Callable[[int], Sequence[Query]],
    *,
    algorithm: Algorithm,
    head: Reward,
    first_step: int = 1,
    workers: Workers = Workers(),  # noqa: B008
    hidden_device: torch.device | str | None = None,
    pairs_of: Callable[[int], Scored] | None = None,
) -> Iterator[Round]:
    """Rounds `first_step` to T, each yielded when it is done.

    Args:
        queries_of: step -> this worker's queries of the round.
        head: how a reward that learns is trained.
        hidden_device: where the hidden states wait; the policy's device by default.
        pairs_of: step -> this worker's original preference pairs that anchor the head (K = 2), read now.

    Raises:
        FloatingPointError: a gradient that is not finite, before it reaches the weights.
    """
    a, T, estimator = algorithm, algorithm.total_rounds, ADVANTAGES[algorithm.advantage]
    hidden_device = hidden_device or policy.device
    clock = Clock(policy.device)
    for step in range(first_step, T + 1):  # line 1
        clock.start_round()
        queries = queries_of(step)  # line 2

        with clock("sample"):  # lines 3-5: π_old is the policy as it is now
            t, greedy = sampler(queries, step)

        with clock("annotate"), torch.no_grad():
            keep = hidden_device if reward.reads_hidden else None
            old = annotate(policy, t, a, keep)  # lines 6 and 7
            scored = reward.score(queries, t, old.hidden, step)  # line 8
            greedy_N = None
            if greedy is not None:  # ReMax: by the reward that the others have
                states = None if keep is None else states_of(policy, greedy, a, keep)
                greedy_N = reward.score(queries, greedy, states, step, greedy=True).scores_NK.squeeze(1)
            rewarded_NK, to_go_NKT = with_kl(scored.scores_NK, old, t.response_mask_NKR, a)
            batch = Batch(rewarded_NK, to_go_NKT, t.response_mask_NKR, greedy_N, workers.sum)
            advantages_NKT = estimator.advantages(batch)  # line 9, Eq. 1

        with clock("policy"):
            lr = a.lr * (1 - (step - 1) / T if a.lr_decay == "linear" else 1)
            trained = train_policy(policy, t, old, advantages_NKT, lr, a, workers, step)  # lines 10-13
        sampler.weights_changed(step)

        learned: dict[str, float] = {}
        if reward.learns:
            with clock("head"):
                pairs = None if pairs_of is None else pairs_of(step)
                learned = train_head(reward, scored, head, a.microbatch, workers, step, pairs)  # 14-20
            learned |= {"label/judgements": float(step * head.labels)} if head.labels else {}
        if old.hidden is not None:
            learned |= {"head/omega": scored.omega, "memory/hidden_mib": old.hidden.mib}

        metrics = round_metrics(
            t, scored.scores_NK, scored.vanilla_NK, advantages_NKT[..., 0], old.old_NKR, old.ref_NKR,
            old.entropy_NKR, workers,
        )  # fmt: skip
        tokens = sampled = metrics["rollout/response_tokens"] * t.ended_NK.numel() * workers.size
        if greedy is not None and greedy_N is not None:
            metrics |= greedy_metrics(greedy, greedy_N, workers)
            sampled += metrics["rollout/greedy_tokens"] * len(queries) * workers.size
        metrics |= learned | clock.metrics(sampled, tokens * a.epochs) | trained
        yield Round(step, metrics, queries, t, scored.scores_NK, scored.vanilla_NK)


def annotate(policy: TrainedPolicy, t: Trajectories, a: Algorithm, keep: torch.device | str | None) -> Annotation:
    """Forwards of π_old and π_ref on all trajectories; the hidden states stay on the device `keep`."""
    N, K, _ = t.response_ids_NKR.shape
    old_NKR, ref_NKR, entropy_NKR = (torch.zeros_like(t.sampler_log_probs_NKR) for _ in range(3))
    hidden = None if keep is None else HiddenStates(t, policy.dtype, keep)
    for at in microbatches(range(N), K, a.microbatch):
        block = t.block(*at)
        width = block.response_ids_NKR.shape[-1]
        out = policy.forward(block, a.temperature, entropy=True)
        old_NKR[*at, :width], entropy_NKR[*at, :width] = out.log_probs_NKR, out.entropy_NKR
        if hidden is not None:
            hidden.store(*at, out)  # line 6
        ref_NKR[*at, :width] = policy.reference(block, a.temperature).log_probs_NKR
    return Annotation(old_NKR, ref_NKR, entropy_NKR, hidden)


def with_kl(scores_NK: Tensor, old: Annotation, mask_NKR: Tensor, a: Algorithm) -> tuple[Tensor, Tensor]:
    """Rewards NK of whole responses and NKT of each token and those after it, less β KL where it is in the reward."""
    if a.kl_placement == "loss":
        return scores_NK, scores_NK[..., None]
    rewarded_NK = kl_in_reward(scores_NK, old.old_NKR, old.ref_NKR, mask_NKR, a.beta, a.kl_estimator)
    kl_NKR = kl_estimate(old.old_NKR, old.ref_NKR, a.kl_estimator).masked_fill(~mask_NKR, 0.0)
    return rewarded_NK, reward_to_go(scores_NK, kl_NKR, a.beta)


def train_policy(
    policy: TrainedPolicy, t: Trajectories, old: Annotation, advantages_NKT: Tensor, lr: float, a: Algorithm,
    workers: Workers, step: int,
) -> dict[str, float]:  # fmt: skip
    """The RL optimisation phase: epochs of Eq. 2. Its metrics; none where there is no epoch."""
    N, K, _ = t.response_ids_NKR.shape
    updates, grad_norm = a.epochs * a.minibatches, 0.0
    totals = torch.zeros(3, dtype=torch.float64, device=policy.device)
    first_ratio_error = torch.zeros(1, device=policy.device)
    weight_NKR = None
    if a.sampler_correction == "truncated":
        weight_NKR = sampler_weight(
            old.old_NKR, t.sampler_log_probs_NKR, t.response_mask_NKR, a.ratio_level, a.sampler_cap
        )
    for iteration in range(1, a.epochs + 1):  # line 11
        for j, minibatch in enumerate(split(N, a.minibatches)):
            own_tokens = t.response_mask_NKR[minibatch.start : minibatch.stop].sum()
            total_tokens = workers.sum(own_tokens.double())
            for at in microbatches(minibatch, K, a.microbatch):  # line 12, Eq. 2
                block = t.block(*at)
                width = block.response_ids_NKR.shape[-1]
                out = policy.forward(block, a.temperature)
                part = policy_loss(
                    out.log_probs_NKR, old.old_NKR[*at, :width], old.ref_NKR[*at, :width],
                    advantages_NKT[at][..., :width], block.response_mask_NKR,
                    ratio_level=a.ratio_level, clip_low=a.clip_low, clip_high=a.clip_high, beta=a.beta,
                    kl_placement=a.kl_placement, kl_estimator=a.kl_estimator, loss_aggregation=a.loss_aggregation,
                    sampler_weight_NKR=None if weight_NKR is None else weight_NKR[at][..., :width],
                    total_sequences=len(minibatch) * K * workers.size, total_tokens=total_tokens,
                )  # fmt: skip
                policy.backward(part.loss)
                if old.hidden is not None and iteration == a.epochs:
                    old.hidden.store(*at, out)  # line 13
                totals += torch.stack([part.loss.detach(), part.clipped_terms, part.terms])
                if iteration == 1 and j == 0:
                    first_ratio_error = torch.maximum(first_ratio_error, part.max_ratio_deviation)
            grad_norm += healthy(policy.step(lr), step) / updates
    if not updates:
        return {}
    loss_sum, clipped, terms = workers.sum(totals).tolist()
    return {
        "train/policy_loss": loss_sum / updates,
        "train/clip_fraction": clipped / terms,
        "train/ratio_error_first_minibatch": float(workers.gather(first_ratio_error).max()),
        "train/grad_norm": grad_norm,
        "train/lr": lr,
    }


def train_head(
    reward: RoundReward, scored: Scored, r: Reward, microbatch: int, workers: Workers, step: int,
    pairs: Scored | None = None,
) -> dict[str, float]:  # fmt: skip
    """The reward optimisation phase: epochs of Eq. 6 over the round's groups, or those that a judge has labelled, and
    of Bradley-Terry on original `pairs`, chosen and rejected. Its metrics."""
    K = scored.scores_NK.shape[1]
    trained = taught_groups(len(scored.scores_NK), r, workers)
    N = sum(map(len, trained))
    best_N, worst_N = best_and_worst(scored.scores_NK if scored.labels_NK is None else scored.labels_NK)  # line 16
    sums, grad_norm = torch.zeros(2, device=scored.H_NKD.device), 0.0
    anchor_sum = torch.zeros(1, device=scored.H_NKD.device)
    for _ in range(r.epochs):
        for part, minibatch in enumerate(trained):
            for groups, _ in microbatches(minibatch, K, max(microbatch, K)):
                r_NK = reward.rescore(scored, groups)  # line 18
                chosen_N = r_NK.gather(1, best_N[groups, None]).squeeze(1)
                rejected_N = r_NK.gather(1, worst_N[groups, None]).squeeze(1)
                bt_N = bradley_terry(chosen_N, rejected_N)  # line 17, Eq. 4
                entropy_N = group_reward_entropy(r_NK)  # line 19, Eq. 5
                total = (1 - r.anchor) * gre_bt(bt_N, entropy_N, r.alpha).sum()  # Eq. 6
                (total / (len(minibatch) * workers.size)).backward()
                sums += torch.stack([bt_N.sum(), entropy_N.sum()]).detach() / r.epochs
            if pairs is not None:
                own = split(len(pairs.H_NKD), r.minibatches)[part]
                for at, _ in microbatches(own, 2, max(microbatch, 2)):
                    original_N = bradley_terry(*reward.rescore(pairs, at).unbind(1))
                    (r.anchor * original_N.sum() / (len(own) * workers.size)).backward()
                    anchor_sum += original_N.detach().sum() / r.epochs
            grad_norm += healthy(reward.step(), step) / (r.epochs * r.minibatches)  # line 20
    bt, gre = (workers.sum(sums) / (N * workers.size)).tolist()
    metrics = {"head/bt": bt, "head/gre": gre, "head/grad_norm": grad_norm}
    loss = (1 - r.alpha) * bt + r.alpha * gre
    if pairs is not None:
        metrics["head/anchor"] = float(workers.sum(anchor_sum)) / (len(pairs.H_NKD) * workers.size)
        loss = (1 - r.anchor) * loss + r.anchor * metrics["head/anchor"]
    return metrics | {"head/loss": loss}


def healthy(norm: float, step: int) -> float:
    """A gradient's norm. Raises FloatingPointError where it is not finite: nothing was changed by it."""
    if not norm < float("inf"):
        raise FloatingPointError(f"round {step}: the gradient's norm is {norm}; the run has diverged")
    return norm
