"""Every metric that a round reports: `phase/name` -> unit and one-line definition.

docs/metrics.md has each with its range and what a bad value means. Keys under "task/" are a task's own
measures; those here are the embedded task's.
"""

METRICS: dict[str, str] = {
    # the scores of the round's responses
    "reward/proxy": "score units: mean of the scores that trained the policy",
    "reward/proxy_std": "score units: population standard deviation within a group, mean over the groups",
    "reward/vanilla": "score units: mean score of the frozen reward model",
    "reward/greedy": "score units: mean score of the greedy responses, one a query (ReMax only)",
    "reward/gold": "gold units: mean of the task's own program, where the task has one",
    "reward/gold_correlation": "none: Pearson correlation of proxy and gold over the round's responses",
    "reward/vanilla_gold_correlation": "none: Pearson correlation of the frozen reward model and gold",
    "reward/choice_accuracy": (
        "share: groups whose best response by proxy has more gold than their worst (gold ties left out)"
    ),
    "reward/vanilla_choice_accuracy": "share: the same, best and worst chosen by the frozen reward model",
    # the RL optimisation phase
    "train/policy_loss": "loss units: mean policy loss (Eq. 2) over the round's minibatches",
    "train/clip_fraction": "share: tokens (or sequences) whose gradient the clip removes",
    "train/ratio_error_first_minibatch": "none: max |ratio - 1| over the round's first minibatch",
    "train/entropy": "nats per token: mean entropy of the policy at the sampled positions",
    "train/grad_norm": "none: L2 norm of the policy's gradient before clipping, mean over optimiser steps",
    "train/lr": "none: the policy's learning rate in the round",
    "train/advantage_std": "the advantage's unit: population standard deviation over the round's responses",
    # the distance from the reference policy
    "kl/sequence": "nats per sequence: log pi - log pi_ref of the sampled tokens (k1), summed, mean over B",
    "kl/token": "nats per token: log pi - log pi_ref of the sampled tokens (k1), mean over tokens",
    # the samples
    "rollout/response_tokens": "tokens: mean length of a response, its EOS included",
    "rollout/greedy_tokens": "tokens: mean length of the greedy responses, one a query (ReMax only)",
    "rollout/no_eos_share": "share: responses that hit the length limit without an EOS",
    "rollout/log_prob_error": "nats: max |sampler's log-prob - trainer's old log-prob| over tokens",
    "rollout/unique_share": "share: distinct texts among the K responses of a group, mean over the groups",
    # the reward optimisation phase (R2M only; head/omega alone where the head is not trained)
    "head/bt": "nats: Bradley-Terry loss (Eq. 4) of the best and worst of each group",
    "head/gre": "nats: group reward entropy (Eq. 5), mean over the groups",
    "head/loss": "loss units: their mix (Eq. 6), which the head descends",
    "head/omega": "share: weight omega(t) of the frozen embedding in the final one (Eq. 3)",
    "head/grad_norm": "none: L2 norm of the head's gradient before clipping",
    # the embedded task's own measures
    "task/no_space_share": "share: words without the space in front of them, of all words of the round",
    "task/coverage": "share: facts of the post that the response gives, mean over B",
    "task/invented": "words per response: words that state what the post does not, mean over B",
    # held-out prompts, at chosen rounds
    "eval/gold": "gold units: mean gold reward of responses to held-out prompts",
    "eval/win_rate": "share: held-out responses that the judge prefers to the reference policy's, a tie as half",
    "eval/proxy": "score units: mean of the reward model in training, on held-out prompts",
    "eval/vanilla": "score units: mean of the frozen reward model, on held-out prompts",
    "eval/noise": "score units: as eval/proxy, with noise in the feedback's place (R2M only)",
    "eval/kl_sequence": "nats per sequence: as kl/sequence, on held-out prompts",
    "eval/response_tokens": "tokens: as rollout/response_tokens, on held-out prompts",
    # the cost
    "time/sample_s": "seconds: sampling the responses",
    "time/annotate_s": "seconds: scores, old and reference log-probs, hidden states",
    "time/policy_s": "seconds: RL optimisation phase",
    "time/head_s": "seconds: reward optimisation phase",
    "time/eval_s": "seconds: evaluation on held-out prompts",
    "time/round_s": "seconds: the whole round",
    "speed/sampled_tokens_per_s": "tokens per second: response tokens / time/sample_s",
    "speed/trained_tokens_per_s": "tokens per second: response tokens * epochs / time/policy_s",
    "memory/peak_mib": "MiB: peak resident memory of the process, or peak allocated memory of its GPU",
}

SWEEP_METRICS: dict[str, str] = {  # of a sweep's own journal: step k is the k-th trial that was settled
    "sweep/value": "the objective's unit: first objective of the trial, NaN where it failed",
    "sweep/best": "the objective's unit: best first objective so far, of trials that keep the constraints",
    "sweep/kl": "nats per sequence: eval/kl_sequence at the trial's last evaluation",
    "sweep/trial": "none: the trial's number in the study",
    "sweep/worker_hours": "hours: workers * time, summed over all of the sweep's runs so far",
}
