"""Keys and values that grow in place: a token costs its own, not a copy of all before it.

Axes: A rows, H heads, S tokens so far, D width of a head.
"""

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

CHUNK = 64  # tokens that room is made for at once


def growing_cache(config: Any) -> DynamicCache:
    """A model's cache, without gradients; layers of anything but full attention are transformers' own."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class GrowingLayer(DynamicLayer):
    """Keys and values [A, H, S, D] are the first S tokens of tensors with room for more."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._rooms = [x[..., :0, :] for x in (key_states, value_states)]
        S, T = self.get_seq_length(), key_states.shape[-2]
        for i, new in enumerate((key_states, value_states)):
            if self._rooms[i].shape[-2] < S + T:
                self._rooms[i] = _moved(self._rooms[i][..., :S, :], S + T)
            self._rooms[i][..., S : S + T, :] = new
        self.keys, self.values = (room[..., : S + T, :] for room in self._rooms)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        S = self.get_seq_length()
        if S:
            self._rooms = [_moved(room[..., :S, :], S + 1, beam_idx) for room in self._rooms]
            self.keys, self.values = (room[..., :S, :] for room in self._rooms)


def _moved(kept: Tensor, tokens: int, rows_A: Tensor | None = None) -> Tensor:
    """Room for at least so many tokens, with those of `kept`, of some of its rows, in front."""
    rows = len(kept) if rows_A is None else len(rows_A)
    _, H, S, D = kept.shape
    room = kept.new_empty(rows, H, -(-tokens // CHUNK) * CHUNK, D)
    room[:, :, :S] = kept if rows_A is None else kept[rows_A]
    return room
