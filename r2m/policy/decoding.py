"""The policy token by token, with what its family lets it keep of the tokens before.

Axes: N queries, K responses, P prompt tokens, A rows still being written, S tokens so far, D width.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from r2m.core.masking import positions
from r2m.models.families import OWN_POSITIONS, CacheUse
from r2m.policy.output import base, cache_use


class Decoder:
    """Rows of text that grow, K of each prompt at first; `hidden_AD` are those that predict each row's next token."""

    hidden_AD: Tensor

    def __init__(self, model: PreTrainedModel, ids_NP: Tensor, mask_NP: Tensor, K: int) -> None:
        """Prompts run once, padded on the left; without padding where they aren't SHARED."""
        self._cache_use, self._base = cache_use(model), base(model)
        assert self._cache_use is CacheUse.SHARED or bool(mask_NP.all()), "prompts of equal lengths"
        takes = inspect.signature(self._base.forward).parameters
        self._cache_name = "cache_params" if "cache_params" in takes else "past_key_values"
        self._positions = self._cache_use is CacheUse.SHARED or (
            "position_ids" in takes and model.config.model_type not in OWN_POSITIONS
        )
        self._cache = None if self._cache_use is CacheUse.RERUN else DynamicCache(config=model.config)
        self._ids_AS, self._mask_AS = ids_NP, mask_NP.long()
        self._position_A = mask_NP.sum(-1)
        self._run(ids_NP, positions(mask_NP))
        self.keep(torch.arange(len(ids_NP), device=ids_NP.device).repeat_interleave(K))

    def keep(self, rows_A: Any) -> None:
        """Go on with these rows; those that have ended leave."""
        if self._cache is not None:
            self._cache.reorder_cache(rows_A)
        self._ids_AS, self._mask_AS = self._ids_AS[rows_A], self._mask_AS[rows_A]
        self._position_A, self.hidden_AD = self._position_A[rows_A], self.hidden_AD[rows_A]

    def append(self, token_A: Tensor) -> None:
        """Let each row go on with its token."""
        self._ids_AS = torch.cat([self._ids_AS, token_A[:, None]], 1)
        self._mask_AS = torch.cat([self._mask_AS, torch.ones_like(token_A)[:, None]], 1)
        self._run(token_A[:, None], self._position_A[:, None])
        self._position_A = self._position_A + 1

    def _run(self, ids: Tensor, position_ids: Tensor) -> None:
        inputs: dict[str, Any] = {"input_ids": ids, "use_cache": True, self._cache_name: self._cache}
        if self._cache_use is CacheUse.SHARED:
            inputs["attention_mask"] = self._mask_AS
        if self._positions:
            inputs["position_ids"] = position_ids
        if self._cache_use is CacheUse.RERUN:
            inputs = {"input_ids": self._ids_AS, "use_cache": False}
        self.hidden_AD = self._base(**inputs).last_hidden_state[:, -1]
