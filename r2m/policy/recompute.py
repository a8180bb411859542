"""Activations that are computed again in the backward, layer by layer, beside keys and values that are shared.

transformers' own checkpointing turns caches off, since a layer that runs again would append to its cache again. Here
a layer's keys and values are appended to a copy of what the cache held before: however often it runs, it sees the
same.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer
from transformers.modeling_layers import GradientCheckpointingLayer

from r2m.errors import UserError


class PrefixCache(DynamicCache):
    """What tokens have behind them, which running them does not change."""

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        self._grown: dict[int, CacheLayerMixin] | None = {}  # with the tokens that have run
        self._repeats = 1

    def after(self, repeats: int) -> "PrefixCache":
        """What the last tokens have behind them, in so many continuations of each row."""
        last = copy.copy(self)
        last.layers = [(self._grown or {}).get(i, layer) for i, layer in enumerate(self.layers)]
        last._grown, last._repeats = None, repeats
        return last

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        layer: Any = copy.copy(self.layers[layer_idx])
        layer.batch_repeat_interleave(self._repeats)
        out: tuple[Tensor, Tensor] = layer.update(key_states, value_states, *args, **kwargs)
        if self._grown is not None:
            self._grown.setdefault(layer_idx, layer)
        return out


def recompute_activations(model: PreTrainedModel, named: str) -> None:
    """Let the model's forwards with gradients keep what goes into each layer, and run it again in the backward.

    Raises UserError, one line that begins with `named`, for a family without layers that can.
    """
    if not any(_outermost(model)):
        raise UserError(f"{named}: layers of {model.config.model_type} can't be recomputed; allowed: false")
    vars(model)["recompute"] = True


def recomputes(model: PreTrainedModel) -> bool:
    return bool(vars(model).get("recompute"))


def has_prefix_cache(config: Any) -> bool:
    """Whether all that a model's cache holds is keys and values."""
    return all(type(x) in (DynamicLayer, DynamicSlidingWindowLayer) for x in DynamicCache(config=config).layers)


@contextmanager
def recomputed(model: nn.Module) -> Iterator[None]:
    """Layers that run within keep only what goes into them, and run again in the backward."""
    layers = list(_outermost(model))
    for layer in layers:
        vars(layer)["forward"] = _again(layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, GradientCheckpointingLayer):
            yield child
        else:
            yield from _outermost(child)


def _again(forward: Any) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return run
