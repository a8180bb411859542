"""From hidden states to logits by the model's own path: its output layer, bias, scales and soft caps.

Axes: N tokens, D width, V vocabulary.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutputWithPast

from r2m.models.families import CacheUse, cache_use_of
from r2m.policy.attention import use_grouped_attention

use_grouped_attention()


def own_logits(model: PreTrainedModel, hidden_ND: Tensor) -> Tensor:
    """Logits [N, V] of hidden states after the last norm, with gradients to them and to the output layer.

    The model's own forward runs, on a copy of its shell whose base model gives the hidden states.
    """
    shell, name = copy.copy(model), _base_name(model)
    shell._modules = model._modules | {name: _Given(model._modules[name], hidden_ND[None])}
    ids = torch.zeros(1, len(hidden_ND), dtype=torch.long, device=hidden_ND.device)
    return shell(input_ids=ids, use_cache=False).logits[0]


def base(model: PreTrainedModel) -> nn.Module:
    """What gives the hidden states, after its last norm: the model without its output layer."""
    found: nn.Module = getattr(model, _base_name(model))
    return found


def _base_name(model: PreTrainedModel) -> str:
    # Llama 4's prefix names a module that its text model alone does not have.
    return next(name for name in (model.base_model_prefix, "model") if name in model._modules)


class _Given(nn.Module):
    """Stands for a base model, or a decoder inside one: gives hidden states, and the base's own attributes."""

    def __init__(self, base: nn.Module | None, hidden: Any) -> None:
        super().__init__()
        vars(self).update(base=base, output=_Output(last_hidden_state=hidden))

    def __getattr__(self, name: str) -> Any:
        value = getattr(vars(self)["base"], name)
        return self if isinstance(value, nn.Module) else value

    def forward(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPast:
        return self.output


class _Output(BaseModelOutputWithPast):
    """Whatever else a base model gives (router logits, cross-attentions, states) is None."""

    def __getattr__(self, name: str) -> None:
        return None


def mark_unused_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Keep in the model which ids no token has: rows that pad an embedding, holes in a vocabulary."""
    unused_V = torch.ones(vocabulary(model), dtype=torch.bool)
    ids = torch.tensor(sorted(set(tokenizer.get_vocab().values())))
    unused_V[ids[ids < len(unused_V)]] = False
    if unused_V.any():
        model.unused_ids_V = unused_V.to(model.device)  # no buffer: it has no place in checkpoints


def unused_ids(model: PreTrainedModel) -> Tensor | None:
    """unused_V, true at ids that no token has: they are never sampled, and have no part in any distribution."""
    found: Tensor | None = vars(model).get("unused_ids_V")
    return found


def padding_id(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """An id to fill rows with, which nothing looks at: the tokenizer's for padding, where the model has it."""
    found = tokenizer.pad_token_id
    return found if found is not None and found < vocabulary(model) else 0


def vocabulary(model: PreTrainedModel) -> int:
    """V, the number of logits."""
    return int(model.config.get_text_config(decoder=True).vocab_size)


def cache_use(model: PreTrainedModel) -> CacheUse:
    """How its prompts and responses are run: what the loader has found right, else what its family allows."""
    found: CacheUse | None = vars(model).get("cache_use")
    return found or cache_use_of(model.config)
