"""Supervised fine-tuning, the first stage of RLHF (App. G.1).

Axes: B sequences, T tokens, D width, M completion tokens of the batch, V vocabulary.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r2m.core.masking import pad
from r2m.errors import UserError
from r2m.policy.loading import load_policy
from r2m.policy.output import base, own_logits
from r2m.stages import common
from r2m.stages.progress import Progress, silent
from r2m.tasks.answer import answer_ids
from r2m.tasks.columns import completions
from r2m.tasks.prompt import Prompt, located, prompt_ids

Tokens = tuple[list[int], int]  # ids of prompt + completion + EOS, and the number that are the prompt's


def supervised_finetune(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[tuple[Prompt, str]], *,
    steps: int | None = None, epochs: float = 1, batch_size: int = 32, lr: float = 1e-5, seed: int = 0,
    max_tokens: int | None = None, held_out_share: float = 0.05, progress: Progress = silent,
) -> dict[str, Any]:  # fmt: skip
    """Minimise the cross-entropy of completions and their EOS, in place; prompts are not trained on.

    Args:
        steps: optimiser steps; where None, as many as make `epochs` passes.
        max_tokens: longer examples, prompt included, are left out.
        held_out_share: of the examples, for the report, never trained on.

    Returns:
        rows, held_out_rows, left_out, steps; held-out loss (nats a token, before and after) and token accuracy.

    Raises:
        UserError: fewer than two examples left, or one longer than the model's context.
    """
    encoded = [_encode(tokenizer, *example) for example in examples]
    kept = [e for e in encoded if max_tokens is None or len(e[0]) <= max_tokens]
    train, held_out = common.hold_out(kept, held_out_share, seed, len(encoded) - len(kept))
    common.check_lengths(max(len(ids) for ids, _ in kept), model)
    total = steps or max(1, round(epochs * -(-len(train) // batch_size)))
    before, _ = _evaluate(model, held_out, batch_size)

    order = common.batches([len(ids) for ids, _ in train], batch_size, seed)
    for _ in common.training(model, lr, total, "supervised fine-tuning", progress):
        F.cross_entropy(*_forward(model, [train[i] for i in next(order)])).backward()

    after, accuracy = _evaluate(model, held_out, batch_size)
    return {
        "rows": len(train), "held_out_rows": len(held_out), "left_out": len(encoded) - len(kept), "steps": total,
        "loss_before": before, "loss": after, "token_accuracy": accuracy,
    }  # fmt: skip


def run_sft(model: str, data: str, out: Path, **options: Any) -> dict[str, Any]:
    """`r2m sft`: fine-tune a model on prompt/completion data. Options: `run_stage`'s and `supervised_finetune`'s."""

    def load(tokenizer: PreTrainedTokenizerBase, seed: int, device: str) -> PreTrainedModel:
        return load_policy(model, device=device)

    return common.run_stage("sft", completions, load, supervised_finetune, model, data, out, **options)


def _encode(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, completion: str) -> Tokens:
    asked = prompt_ids(prompt, tokenizer)
    if not asked:
        with located(prompt):
            raise UserError("data: a prompt without a token; the first response token needs one to follow")
    answer, end = answer_ids(tokenizer, prompt, completion), [tokenizer.eos_token_id]
    return asked + answer + end * (answer[-1:] != end), len(asked)


def _forward(model: PreTrainedModel, batch: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
    """Logits [M, V] and targets [M] of the batch's completion tokens; the output layer sees no others."""
    ids_BT, mask_BT = (x.to(model.device) for x in pad([ids for ids, _ in batch], 0, "right"))
    prompt_B1 = torch.tensor([[length] for _, length in batch], device=model.device)
    target_BT = mask_BT & (torch.arange(ids_BT.shape[1], device=model.device) >= prompt_B1)
    # Padding on the right comes after all that is real: a causal model needs no mask to ignore it.
    hidden_BTD = base(model)(input_ids=ids_BT, use_cache=False).last_hidden_state
    return own_logits(model, hidden_BTD[:, :-1][target_BT[:, 1:]]).float(), ids_BT[target_BT]


@torch.no_grad()
def _evaluate(model: PreTrainedModel, examples: Sequence[Tokens], batch_size: int) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy over completion tokens."""
    model.eval()
    loss, right, count = 0.0, 0, 0
    for start in range(0, len(examples), batch_size):
        logits_MV, targets_M = _forward(model, examples[start : start + batch_size])
        loss += float(F.cross_entropy(logits_MV, targets_M, reduction="sum"))
        right += int((logits_MV.argmax(-1) == targets_M).sum())
        count += len(targets_M)
    return loss / count, right / count
