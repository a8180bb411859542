"""Algorithm 1 of the paper, top to bottom; without the lines marked "feedback" it is RLOO, or another estimator.

Axes: N queries of this worker, K responses of each, R response tokens, T = R or 1, D width.

Where it departs from the printed algorithm, or fills it in (docs/decisions.md has the reasons):
- Eq. 3 counts rounds from 1, so the last round scores with ω = Ω.
- The preference pair of line 16 is the best and the worst by the scores that line 8 gave.
- Lines 6 and 8 take the log-probs of π_old, the hidden states and the masks from one forward.
- A response without an end token gets a stated score, not the reward model's.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from r2m.config import Algorithm, Reward
from r2m.core.advantages import ADVANTAGES, Batch, reward_to_go
from r2m.core.feedback_head import FeedbackHead
from r2m.core.policy_loss import kl_estimate, kl_in_reward, policy_loss
from r2m.core.reward_loss import best_and_worst, bradley_terry, gre_bt, group_reward_entropy
from r2m.core.schedule import omega
from r2m.core.trajectories import Trajectories, microbatches
from r2m.policy.forward import HiddenStates, policy_forward
from r2m.policy.queries import Query
from r2m.reward.feedback import NoiseStates, feedback_scores, greedy_scores
from r2m.reward.scoring import RewardEmbedder, end_token_rule
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


def train(
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    reward_model: RewardEmbedder,
    sampler: Callable[[Sequence[list[int]], int], Trajectories],
    queries_of: Callable[[int], Sequence[Query]],
    policy_optimizer: torch.optim.Optimizer,
    head: FeedbackHead | None,
    head_optimizer: torch.optim.Optimizer | None,
    *,
    algorithm: Algorithm,
    reward: Reward,
    first_step: int = 1,
    workers: Workers = Workers(),  # noqa: B008
    hidden_device: torch.device | str | None = None,
    seed: int = 0,
) -> Iterator[Round]:
    """Rounds `first_step` to T, each yielded when it is done: R2M with a feedback head, without one plain RLOO.

    Args:
        sampler: (prompts' ids, step) -> K responses of each, and for ReMax a greedy one after them.
        queries_of: step -> this worker's queries of the round.
        head_optimizer: None leaves the head as it is.
        hidden_device: where the hidden states wait; the policy's device by default.
        seed: of the noise, where reward.hidden is noise.

    Raises:
        FloatingPointError: a gradient that is not finite, before it reaches the weights.
    """
    a, T, device = algorithm, algorithm.total_rounds, policy.device
    clock, updates = Clock(device), a.epochs * a.minibatches  # 0: nothing is trained
    for step in range(first_step, T + 1):  # line 1
        clock.start_round()
        queries = queries_of(step)  # line 2
        N, K = len(queries), a.responses

        with clock("sample"):  # lines 3-5: π_old is the policy as it is now
            t = sampler([query.ids for query in queries], step)
            greedy = None
            if t.ended_NK.shape[1] > K:  # ReMax
                t, greedy = t.block(slice(0, N), slice(0, K)), t.block(slice(0, N), slice(K, K + 1))

        with clock("annotate"), torch.no_grad():
            old_NKR, ref_NKR, entropy_NKR = (torch.zeros_like(t.sampler_log_probs_NKR) for _ in range(3))
            hidden = None
            if head is not None:  # feedback
                hidden = HiddenStates(t, policy.dtype, hidden_device or device)
            for at in microbatches(range(N), K, a.microbatch):
                block = t.block(*at)
                width = block.response_ids_NKR.shape[-1]
                out = policy_forward(policy, block, a.temperature)
                old_NKR[*at, :width], entropy_NKR[*at, :width] = out.log_probs_NKR, out.entropy_NKR
                if hidden is not None:  # feedback
                    hidden.store(*at, out)  # line 6
                ref = policy_forward(reference, block, a.temperature, entropy=False)
                ref_NKR[*at, :width] = ref.log_probs_NKR

            H_NKD = reward_model.embed(queries, t)
            vanilla_NK = end_token_rule(reward_model.phi(H_NKD).squeeze(-1), t.ended_NK, reward)
            weight = omega(step, T, reward.omega_min, reward.omega_schedule)  # Eq. 3
            scores_NK = vanilla_NK
            h: HiddenStates | NoiseStates | None = hidden
            if hidden is not None and reward.hidden == "noise":  # the ablation
                h = NoiseStates(hidden, t, a.microbatch, workers, "noise", seed, step)
            if head is not None and h is not None:  # feedback
                scores_NK = feedback_scores(head, H_NKD, h, t, weight, a.microbatch, reward)  # line 8
            greedy_N = None
            if greedy is not None:  # ReMax
                greedy_N = greedy_scores(
                    policy, reward_model, head, queries, greedy, weight, a, reward,
                    device=hidden_device or device, workers=workers, seed=seed, step=step,
                )  # fmt: skip
            rewarded_NK, to_go_NKT = scores_NK, scores_NK[..., None]
            if a.kl_placement == "reward":
                rewarded_NK = kl_in_reward(
                    scores_NK.flatten(), old_NKR.flatten(0, 1), ref_NKR.flatten(0, 1),
                    t.response_mask_NKR.flatten(0, 1), a.beta, a.kl_estimator,
                ).view(N, K)  # fmt: skip
                kl_NKR = kl_estimate(old_NKR, ref_NKR, a.kl_estimator)
                to_go_NKT = reward_to_go(scores_NK, kl_NKR.masked_fill(~t.response_mask_NKR, 0.0), a.beta)
            batch = Batch(rewarded_NK, to_go_NKT, t.response_mask_NKR, greedy_N, workers.sum)
            advantages_NKT = ADVANTAGES[a.advantage](batch)  # line 9, Eq. 1

        with clock("policy"):
            lr = a.lr * (1 - (step - 1) / T if a.lr_decay == "linear" else 1)
            set_lr(policy_optimizer, lr)
            totals, grad_norm = torch.zeros(3, dtype=torch.float64, device=device), 0.0
            first_ratio_error = torch.zeros(1, device=device)
            for iteration in range(1, a.epochs + 1):  # line 11
                for j, minibatch in enumerate(split(N, a.minibatches)):
                    own_tokens = t.response_mask_NKR[minibatch.start : minibatch.stop].sum()
                    total_tokens = workers.sum(own_tokens.double())
                    for at in microbatches(minibatch, K, a.microbatch):  # line 12, Eq. 2
                        block = t.block(*at)
                        width = block.response_ids_NKR.shape[-1]
                        out = policy_forward(policy, block, a.temperature, entropy=False)
                        part = policy_loss(
                            out.log_probs_NKR.flatten(0, 1),
                            old_NKR[*at, :width].flatten(0, 1),
                            ref_NKR[*at, :width].flatten(0, 1),
                            advantages_NKT[at][..., :width].flatten(0, 1),
                            block.response_mask_NKR.flatten(0, 1),
                            ratio_level=a.ratio_level,
                            clip_low=a.clip_low,
                            clip_high=a.clip_high,
                            beta=a.beta,
                            kl_placement=a.kl_placement,
                            kl_estimator=a.kl_estimator,
                            loss_aggregation=a.loss_aggregation,
                            total_sequences=len(minibatch) * K * workers.size,
                            total_tokens=total_tokens,
                        )
                        part.loss.backward()
                        if hidden is not None and iteration == a.epochs:  # feedback
                            hidden.store(*at, out)  # line 13
                        totals += torch.stack([part.loss.detach(), part.clipped_terms, part.terms])
                        if iteration == 1 and j == 0:
                            first_ratio_error = torch.maximum(first_ratio_error, part.max_ratio_deviation)
                    grad_norm += descend(policy, policy_optimizer, a.max_grad_norm, workers, step) / updates

        head_metrics: dict[str, float] = {}
        if h is not None:  # feedback
            head_metrics["head/omega"] = weight
        if head is not None and h is not None and head_optimizer is not None:
            with clock("head"):
                best_N, worst_N = best_and_worst(scores_NK)  # line 16
                sums, head_norm = torch.zeros(2, device=device), 0.0
                for _ in range(reward.epochs):
                    for minibatch in split(N, reward.minibatches):
                        for groups, _ in microbatches(minibatch, K, max(a.microbatch, K)):
                            rows = h.rows(groups, device)
                            r_NK = head(H_NKD[groups].flatten(0, 1), *rows, weight).view(-1, K)  # line 18
                            chosen_N = r_NK.gather(1, best_N[groups, None]).squeeze(1)
                            rejected_N = r_NK.gather(1, worst_N[groups, None]).squeeze(1)
                            bt_N = bradley_terry(chosen_N, rejected_N)  # line 17, Eq. 4
                            entropy_N = group_reward_entropy(r_NK)  # line 19, Eq. 5
                            total = gre_bt(bt_N, entropy_N, reward.alpha).sum()  # Eq. 6
                            (total / (len(minibatch) * workers.size)).backward()
                            sums += torch.stack([bt_N.sum(), entropy_N.sum()]).detach() / reward.epochs
                        head_norm += descend(head, head_optimizer, a.max_grad_norm, workers, step) / (
                            reward.epochs * reward.minibatches
                        )  # line 20
                bt, gre = (workers.sum(sums) / (N * workers.size)).tolist()
                head_metrics |= {
                    "head/bt": bt, "head/gre": gre, "head/grad_norm": head_norm,
                    "head/loss": (1 - reward.alpha) * bt + reward.alpha * gre,
                }  # fmt: skip

        metrics = round_metrics(
            t, scores_NK, vanilla_NK, advantages_NKT[..., 0], old_NKR, ref_NKR, entropy_NKR, workers
        )
        tokens = metrics["rollout/response_tokens"] * N * K * workers.size
        sampled_tokens = tokens
        if greedy is not None and greedy_N is not None:
            metrics |= greedy_metrics(greedy, greedy_N, workers)
            sampled_tokens += metrics["rollout/greedy_tokens"] * N * workers.size
        metrics |= head_metrics | clock.metrics(sampled_tokens, tokens * a.epochs)
        if updates:
            loss_sum, clipped, terms = workers.sum(totals).tolist()
            metrics |= {
                "train/policy_loss": loss_sum / updates,
                "train/clip_fraction": clipped / terms,
                "train/ratio_error_first_minibatch": float(workers.gather(first_ratio_error).max()),
                "train/grad_norm": grad_norm,
                "train/lr": lr,
            }
        yield Round(step, metrics, queries, t, scores_NK, vanilla_NK)


def split(n: int, parts: int) -> list[range]:
    """n queries as `parts` ranges of equal length."""
    size = n // parts
    return [range(i * size, (i + 1) * size) for i in range(parts)]


def descend(
    module: nn.Module, optimizer: torch.optim.Optimizer, max_norm: float, workers: Workers, step: int
) -> float:
    """One optimiser step on the gradients summed over all workers; their norm before clipping."""
    workers.sum_gradients(module.parameters())
    norm = float(nn.utils.clip_grad_norm_(module.parameters(), max_norm))
    if not norm < float("inf"):
        raise FloatingPointError(f"round {step}: the gradient's norm is {norm}; the run has diverged")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr
