"""Models and tokenizers from Hugging Face ids or local folders, and back: safetensors, no remote code.

On a CPU, weights loaded in the dtype that they were saved in are not read into memory: they are a private mapping
of the safetensors file, and all processes of a node share its pages until one writes to them, which copies those.
A mapped file may be deleted or replaced by renaming. Cut short in place it would end the process (SIGBUS): what is
loaded here while others may be writing it is renamed into place whole (r2m.stages).
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from r2m.core.feedback_head import FeedbackHead
from r2m.errors import UserError
from r2m.models import reward_check
from r2m.models.check import settle_way
from r2m.models.families import refusal
from r2m.models.head_weights import settle_head
from r2m.models.hub import hub_reachable
from r2m.models.output import mark_unused_ids, vocabulary
from r2m.models.reward import RewardModel
from r2m.models.saving import make_savable
from r2m.models.saving import save_model as save_model
from r2m.models.weights import check_weights

HEAD_FILE = "feedback_head.safetensors"


def _fetch(loader: Any, field: str, model: str, **options: Any) -> Any:
    """From a local folder, else from the hub, else from what is cached of the hub."""
    cached = not Path(model).is_dir() and not hub_reachable()
    try:
        return loader.from_pretrained(model, trust_remote_code=False, local_files_only=cached, **options)
    except MemoryError:
        raise
    except Exception as error:  # damaged files make the parsers and the models' own code raise anything
        if cached:
            reason = "no such folder, not in the cache, and the hub cannot be reached"
        else:
            reason = " ".join(str(error).split())[:200]
        raise UserError(f"{field} = {model!r}: a Hugging Face folder or hub id is needed; {reason}") from None


def load_config(model: str, field: str = "policy.model") -> Any:
    return _fetch(AutoConfig, field, model)


def load_tokenizer(model: str, field: str = "policy.model") -> PreTrainedTokenizerBase:
    """A tokenizer whose padding token differs from its end token, where it has a token to spare for it."""
    tokenizer = _fetch(AutoTokenizer, field, model)
    if tokenizer.eos_token_id is None:
        raise UserError(f"{field} = {model!r}: its tokenizer has no end-of-sequence token")
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        taken = {tokenizer.eos_token, tokenizer.bos_token}
        special = [str(t) for t in tokenizer.added_tokens_decoder.values() if t.special]
        spare = [t for t in special if t not in taken]
        # Without a spare one any id serves as filler: masks never look at ids. Only training a reward model
        # adds one, for other software's sake that finds the last token by comparing with the padding.
        tokenizer.pad_token = next((t for t in spare if "pad" in t.lower()), spare[0] if spare else None)
    return tokenizer


def load_policy(model: str, dtype: str = "float32", device: str | torch.device = "cpu") -> PreTrainedModel:
    """A causal language model without dropout, run in the fastest way that gives what a plain forward gives.

    Ids that its tokenizer has no token for are kept out of its distributions.
    Raises UserError where no way is right, and where the tokenizer's end token is not one of the model's.
    """
    check_weights(model, "policy.model")
    why = refusal(load_config(model))
    if why is not None:
        raise UserError(f"policy.model = {model!r}: {why}")
    tokenizer = load_tokenizer(model)
    policy: PreTrainedModel = (
        _fetch(AutoModelForCausalLM, "policy.model", model, dtype=getattr(torch, dtype)).eval().to(device)
    )
    if tokenizer.eos_token_id >= vocabulary(policy):
        raise UserError(
            f"policy.model = {model!r}: its tokenizer's end token is {tokenizer.eos_token_id}, and the model has "
            f"{vocabulary(policy)} tokens"
        )
    mark_unused_ids(policy, tokenizer)
    settle_way(policy, f"policy.model = {model!r}")
    make_savable(policy)
    return policy


def frozen_twin(policy: PreTrainedModel) -> PreTrainedModel:
    """The policy as it is now, frozen: the reference.

    The twin takes the policy's weights, mapped from a file if they were, and the policy, which is to be trained,
    takes the copies.
    """
    twin = copy.deepcopy(policy).requires_grad_(False)
    for trained, frozen in zip(policy.parameters(), twin.parameters(), strict=True):
        trained.data, frozen.data = frozen.data, trained.data
    return twin


def load_reward_model(
    model: str, dtype: str = "float32", device: str | torch.device = "cpu", field: str = "reward.model"
) -> tuple[RewardModel, FeedbackHead | None]:
    """The frozen reward model, and the feedback head saved beside it (None where there is none).

    Raises UserError for a model that cannot be had, has not one label, or has weights for a head that is not its
    class's.
    """
    config = load_config(model, field)
    if config.num_labels != 1:
        raise UserError(f"{field} = {model!r}: it has {config.num_labels} labels; a reward model has 1")
    check_weights(model, field)
    why = reward_check.refusal(config)
    if why is not None:
        raise UserError(f"{field} = {model!r}: {why}")
    loaded, report = _fetch(
        AutoModelForSequenceClassification,
        field,
        model,
        dtype=getattr(torch, dtype),
        output_loading_info=True,
    )
    if report["missing_keys"]:
        raise UserError(
            f"{field} = {model!r}: no weights for {', '.join(sorted(report['missing_keys'])[:3])}; "
            "train one with `r2m reward-model`"
        )
    offline = not Path(model).is_dir() and not hub_reachable()
    settle_head(loaded, model, report["unexpected_keys"], field, local_files_only=offline)
    make_savable(loaded)
    reward = RewardModel(loaded).eval().requires_grad_(False).to(device)
    reward_check.check_reward_model(reward, field, model)
    return reward, load_feedback_head(Path(model))


def save_feedback_head(folder: Path, head: FeedbackHead) -> None:
    shape = {
        "reward_width": head.score.in_features,
        "policy_width": head.key.in_features,
        "attention_width": head.key.out_features,
        "num_heads": head.num_heads,
        "score_bias": head.score.bias is not None,
    }
    save_file(head.state_dict(), folder / HEAD_FILE, metadata={"shape": json.dumps(shape)})


def load_feedback_head(folder: Path) -> FeedbackHead | None:
    path = folder / HEAD_FILE
    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        head = FeedbackHead(**json.loads(file.metadata()["shape"]))
        head.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    return head
