"""The policy from a Hugging Face id or folder, and its frozen twin, the reference."""

import copy

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from r2m.errors import UserError
from r2m.models.adapters import chain
from r2m.models.families import policy_refusal
from r2m.models.loading import fetch, load_config, load_tokenizer
from r2m.models.saving import make_savable
from r2m.models.weights import check_weights
from r2m.policy.check import settle_cache_use
from r2m.policy.lora import merge_folder
from r2m.policy.output import mark_unused_ids, vocabulary


def load_policy(model: str, dtype: str = "float32", device: str | torch.device = "cpu") -> PreTrainedModel:
    """A causal language model without dropout, run as fast as it can be with the outputs of a plain forward. Of a
    PEFT folder, its model with the adapters added to the weights.

    Ids that its tokenizer has no token for are kept out of its distributions.
    Raises UserError where no use of caches is right, and where the tokenizer's end token is not one of the model's.
    """
    check_weights(model, "policy.model")
    named = f"policy.model = {model!r}"
    if why := policy_refusal(load_config(model)):
        raise UserError(f"{named}: {why}")
    tokenizer = load_tokenizer(model)
    whole, *folders = chain(model, "policy.model")
    loaded = fetch(AutoModelForCausalLM, "policy.model", whole, dtype=getattr(torch, dtype))
    for folder in folders:
        merge_folder(loaded, folder, named)
    policy: PreTrainedModel = loaded.eval().to(device)
    end, tokens = tokenizer.eos_token_id, vocabulary(policy)
    if end >= tokens:
        raise UserError(f"{named}: its tokenizer's end token is {end}, and the model has {tokens} tokens")
    mark_unused_ids(policy, tokenizer)
    settle_cache_use(policy, named)
    make_savable(policy)
    return policy


def frozen_twin(policy: PreTrainedModel, *, share: bool = False) -> PreTrainedModel:
    """The policy as it is now, frozen: the reference.

    The twin takes the policy's weights, mapped from a file if they were, and the policy, which is to be trained,
    takes the copies. `share`: there are no copies; both are on the same weights, which nothing may write to.
    """
    own = {id(p): nn.Parameter(p.data, requires_grad=False) for p in policy.parameters()}
    twin = copy.deepcopy(policy, own if share else None).requires_grad_(False)
    if not share:
        for trained, frozen in zip(policy.parameters(), twin.parameters(), strict=True):
            trained.data, frozen.data = frozen.data, trained.data
    return twin
