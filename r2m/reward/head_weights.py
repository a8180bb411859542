"""Weights of a reward model's checkpoint that its class has no place for: a bias that is kept, or a head unknown."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from r2m.errors import UserError

# What a reward model may have been made from and does not use: the language model's own output, BERT's pooler,
# layers that predict further tokens; and buffers that older versions of transformers saved.
HARMLESS = re.compile(
    r"(^|\.)(lm_head|embed_out|cls|generator_lm_head|generator_predictions|pooler|mtp)\.|^decoder\.bias$"
    r"|(^|\.)(inv_freq|masked_bias|position_ids|(attn|attention)\.bias)$"
)


def score_layer(model: nn.Module) -> tuple[str, nn.Linear]:
    """The layer that gives the score, the last linear one of one output, and its name."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear) and m.out_features == 1]
    assert layers, "a sequence classifier with one label ends in a linear layer of one output"
    return layers[-1]


def settle_head(model: PreTrainedModel, path: str, unexpected: Collection[str], field: str, **hub: Any) -> None:
    """Give the score layer the bias that the checkpoint at `path` has for it. `unexpected`: names of weights that
    were not loaded; `hub`: as for `cached_file`.

    Raises UserError where any other of them may be part of a head: the scores would be another model's.
    """
    name, layer = score_layer(model)
    bias = f"{name}.bias"
    unknown = [key for key in sorted(unexpected) if key != bias and not HARMLESS.search(key)]
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise UserError(
            f"{field} = {path!r}: its checkpoint has {', '.join(unknown[:3])}{more}, which {type(model).__name__} "
            "has no place for; without them the scores would not be its own"
        )
    if bias in unexpected:
        stored = _stored(path, bias, field, **hub)
        layer.bias = nn.Parameter(stored.to(layer.weight).view(1), requires_grad=layer.weight.requires_grad)


def _stored(path: str, key: str, field: str, **hub: Any) -> Tensor:
    """One tensor of a checkpoint."""
    options = hub | {"_raise_exceptions_for_missing_entries": False}
    index = cached_file(path, SAFE_WEIGHTS_INDEX_NAME, **options)
    name = SAFE_WEIGHTS_NAME
    if index is not None:
        with open(index, encoding="utf-8") as file:
            name = json.load(file)["weight_map"].get(key, name)
    weights = cached_file(path, name, **options)
    if weights is not None:
        with safe_open(weights, "pt") as tensors:
            if key in tensors.keys():  # noqa: SIM118
                return tensors.get_tensor(key)
    raise UserError(f"{field} = {path!r}: its {key} is not in safetensors; save it anew by save_pretrained")
