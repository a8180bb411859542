"""The border between Algorithm 1 and the language model that it trains.

An implementation says where weights, gradients and the optimiser's state are; nothing else knows.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r2m.config import Algorithm
from r2m.core.trajectories import Trajectories, microbatches
from r2m.policy.forward import HiddenStates, PolicyOutput


class TrainedPolicy(Protocol):
    """A policy, the reference that it started from, and its optimiser. All workers call each method alike."""

    @property
    def model(self) -> PreTrainedModel:
        """For its configuration and class: its weights may be elsewhere."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype:
        """Of forwards and hidden states."""

    def forward(self, block: Trajectories, temperature: float, *, entropy: bool = False) -> PolicyOutput:
        """Of the policy as it is now (Alg. 1 lines 6, 12 and 13), with gradients where they are on."""

    def reference(self, block: Trajectories, temperature: float) -> PolicyOutput:
        """Of the policy as it was before training, without gradients; no entropy."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a part of the loss, whose parts over microbatches and workers sum to the whole."""

    def step(self, lr: float) -> float:
        """One optimiser step on the gradients summed over all workers, clipped; their norm before clipping.

        Nothing changes where that is not finite.
        """

    def whole(self, *, reference: bool = False) -> AbstractContextManager[PreTrainedModel]:
        """The policy, or its reference, with all its weights on this worker, for reading alone: workers may use it
        differently long."""

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """All weights by the names that they have in a Hugging Face folder, a tied one once, one after another."""

    def state(self) -> dict[str, Tensor]:
        """What this worker writes into a checkpoint, flat; empty where others write all."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """From what `state` gave on this worker."""

    def export(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """As a Hugging Face folder, which rank 0 writes."""


@torch.no_grad()
def states_of(
    policy: TrainedPolicy, t: Trajectories, a: Algorithm, keep: torch.device | str
) -> HiddenStates:  # fmt: skip
    """Of trajectories that have no part in training, kept on the device `keep`."""
    hidden = HiddenStates(t, policy.dtype, keep)
    for at in microbatches(range(len(t.ended_NK)), t.ended_NK.shape[1], a.microbatch):
        hidden.store(*at, policy.forward(t.block(*at), a.temperature))
    return hidden
