"""What makes sampling fast gives what the plain way gives: cache in place, packed weights, grouped attention."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from torch import nn
from transformers import DynamicCache, LlamaConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from r2m.policy.attention import grouped_sdpa
from r2m.policy.cache import ROOM, growing_cache
from r2m.policy.packing import packed
from tests.families import tiny


def keys(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_a_growing_cache_holds_what_a_copied_one_holds() -> None:
    """Over two enlargements, and rows that leave or repeat."""
    config = LlamaConfig(num_hidden_layers=2)
    caches = growing_cache(config), DynamicCache(config=config)
    rows = 3
    for step, tokens in enumerate((ROOM - 2, 1, 1, 1, ROOM, 1, 1)):
        if step in (2, 5):
            kept = torch.tensor([2, 0, 0, 1]) if step == 2 else torch.tensor([1, 3])
            for cache in caches:
                cache.reorder_cache(kept)
            rows = len(kept)
        for layer in range(2):
            new = keys(rows, 2, tokens, 4) + layer, keys(rows, 2, tokens, 4) - layer
            for own, plain in zip(*(cache.update(*new, layer) for cache in caches), strict=True):
                assert torch.equal(own, plain)
        assert caches[0].get_seq_length() == caches[1].get_seq_length()


def test_a_token_copies_no_token_before_it() -> None:
    cache = growing_cache(LlamaConfig(num_hidden_layers=1))
    first, _ = cache.update(keys(2, 2, 5, 4), keys(2, 2, 5, 4), 0)
    second, _ = cache.update(keys(2, 2, 1, 4), keys(2, 2, 1, 4), 0)
    assert second.data_ptr() == first.data_ptr()


def test_sliding_windows_keep_transformers_own() -> None:
    config = tiny("gemma2").config
    assert growing_cache(config).is_sliding == DynamicCache(config=config).is_sliding == [True, False]


@pytest.mark.parametrize("bias", [True, False])
def test_packed_layers_give_the_same_and_only_within(bias: bool) -> None:
    layer = nn.Linear(4096, 4096, bias=bias)
    model, x = nn.Sequential(layer), torch.randn(2, 3, 4096)
    expected = model(x)
    with suppress(KeyError), packed(model, rows=6):  # it is taken away whatever happens within
        assert "forward" in vars(layer)
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
        raise KeyError
    assert "forward" not in vars(layer)
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize(
    ("width", "dtype", "rows"), [(4096, torch.float32, 1), (4095, torch.float32, 4), (4096, torch.bfloat16, 4)]
)
def test_one_row_small_models_and_bfloat16_are_not_packed(width: int, dtype: torch.dtype, rows: int) -> None:
    layer = nn.Linear(width, width, bias=False, dtype=dtype)
    with packed(nn.Sequential(layer), rows):
        assert "forward" not in vars(layer)


def test_grouped_attention_is_that_of_repeated_keys() -> None:
    """To the last bit; gradients up to the order of sums."""
    module = nn.Module()
    module.num_key_value_groups = 3
    query, key, value = (keys(2, heads, tokens, 16) for heads, tokens in ((6, 5), (2, 7), (2, 7)))
    mask = torch.ones(5, 7).tril(2).bool().expand(2, 1, 5, 7).clone()
    mask[0, :, :, 0] = False
    inputs = [x.requires_grad_() for x in (query, key, value)]
    outputs = [f(module, *inputs, mask, scaling=0.3)[0] for f in (grouped_sdpa, sdpa_attention_forward)]
    assert torch.equal(*outputs)
    own, repeated = (torch.autograd.grad(out.square().sum(), inputs) for out in outputs)
    torch.testing.assert_close(own, repeated)
