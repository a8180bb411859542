"""Reward modelling, the second stage of RLHF: Bradley-Terry on preference pairs (App. G.1, Eq. 7).

Axes: B pairs (2B sequences: the chosen, then the rejected ones), T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from r2m.core.masking import pad
from r2m.core.reward_loss import bradley_terry
from r2m.errors import UserError
from r2m.models.loading import load_config, load_tokenizer
from r2m.models.scoring import response_ids
from r2m.stages import common
from r2m.tasks.columns import preference_pairs, read_rows, shaped
from r2m.tasks.prompt import Prompt

Pair = tuple[list[int], list[int]]  # ids of prompt + response + EOS: chosen, rejected


def train_reward_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[Prompt, str, str]],
    *,
    epochs: int = 1,
    batch_size: int = 32,
    lr: float = 1e-5,
    seed: int = 0,
    max_tokens: int | None = None,
    held_out_share: float = 0.1,
    sft_samples: Sequence[tuple[Prompt, str]] | None = None,
    progress: common.Progress = common.silent,
) -> dict[str, Any]:
    """Minimise Eq. 7 over all weights of a sequence classifier with one label, in place, and centre its scores.

    Args:
        max_tokens: pairs with a longer sequence, prompt included, are left out.
        held_out_share: of the pairs, for the report, never trained on.
        sft_samples: responses of the supervised policy. Their mean score goes into `config.reward_mean`, which
            the loader takes off; without them it is the mean over all responses in the pairs.

    Returns:
        rows, held_out_rows, left_out, steps; held-out loss (nats, before and after), accuracy with its 95 %
        interval, mean margin (reward units); reward_mean, and reward_mean_of: what that is the mean of.

    Raises:
        UserError: fewer than two pairs left, one longer than the model's context, or a tokenizer whose padding
            cannot be told from an end token.
    """
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        raise UserError("tokenizer: it has no padding token apart from its end token; see add_padding")
    encoded = [
        (response_ids(tokenizer, prompt, chosen), response_ids(tokenizer, prompt, rejected))
        for prompt, chosen, rejected in pairs
    ]
    kept = [pair for pair in encoded if max_tokens is None or max(map(len, pair)) <= max_tokens]
    train, held_out = common.hold_out(kept, held_out_share, seed)
    common.check_lengths(max(len(ids) for pair in kept for ids in pair), model)
    pad_id = model.config.pad_token_id = tokenizer.pad_token_id
    total = epochs * -(-len(train) // batch_size)
    before = bradley_terry(*_score_pairs(model, held_out, pad_id, batch_size)).mean()

    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0, fused=True)
    order = common.batches([len(chosen) + len(rejected) for chosen, rejected in train], batch_size, seed)
    for step in range(total):
        chosen_B, rejected_B = _scores(model, [train[i] for i in next(order)], pad_id)
        bradley_terry(chosen_B, rejected_B).mean().backward()
        common.descend(parameters, optimizer, lr, step, total)
        progress("reward model", step + 1, total)
    model.eval()

    chosen_B, rejected_B = _score_pairs(model, held_out, pad_id, batch_size)
    if sft_samples is not None:
        ids = [response_ids(tokenizer, *sample) for sample in sft_samples]
        reward_mean = float(torch.cat(_score_pairs(model, list(zip(ids, ids, strict=True)), pad_id, batch_size)).mean())
    else:
        reward_mean = float(torch.cat(_score_pairs(model, kept, pad_id, batch_size)).mean())
    model.config.reward_mean = reward_mean
    accuracy = float((chosen_B > rejected_B).float().mean())
    return {
        "rows": len(train),
        "held_out_rows": len(held_out),
        "left_out": len(encoded) - len(kept),
        "steps": total,
        "loss_before": float(before),
        "loss": float(bradley_terry(chosen_B, rejected_B).mean()),
        "accuracy": accuracy,
        "accuracy_interval": list(wilson_interval(accuracy, len(held_out))),
        "margin": float((chosen_B - rejected_B).mean()),
        "reward_mean": reward_mean,
        "reward_mean_of": "SFT samples" if sft_samples is not None else "the data's responses",
    }
