"""A policy that is whole on each worker: replicated, its gradients summed."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r2m.config import Algorithm
from r2m.core.trajectories import Trajectories
from r2m.models.saving import save_model
from r2m.policy.descent import Descent
from r2m.policy.forward import PolicyOutput, policy_forward
from r2m.policy.lora import adapters_off, merged_weights
from r2m.policy.state import module_tensors, optimizer_tensors, restore_module, restore_optimizer
from r2m.workers import Workers


class FrozenPolicy:
    """A policy and its reference to look at, without training. `reference`: its frozen twin; None: the policy itself
    with its adapters off."""

    def __init__(self, model: PreTrainedModel, reference: PreTrainedModel | None) -> None:
        self.model, self.reference_model = model, reference
        self.device, self.dtype = model.device, model.dtype

    def forward(self, block: Trajectories, temperature: float, *, entropy: bool = False) -> PolicyOutput:
        return policy_forward(self.model, block, temperature, entropy=entropy)

    @torch.no_grad()
    def reference(self, block: Trajectories, temperature: float) -> PolicyOutput:
        with self.whole(reference=True) as model:
            return policy_forward(model, block, temperature, entropy=False)

    def whole(self, *, reference: bool = False) -> AbstractContextManager[PreTrainedModel]:
        if not reference:
            return nullcontext(self.model)
        return adapters_off(self.model) if self.reference_model is None else nullcontext(self.reference_model)


class WholePolicy(FrozenPolicy):
    """See r2m.policy.policy.TrainedPolicy."""

    def __init__(
        self, model: PreTrainedModel, reference: PreTrainedModel | None, algorithm: Algorithm, workers: Workers
    ) -> None:
        super().__init__(model, reference)
        a, self._workers = algorithm, workers
        self.descent = Descent(
            model.named_parameters(), a.lr, adam_eps=a.adam_eps, weight_decay=a.weight_decay,
            max_grad_norm=a.max_grad_norm, workers=workers,
        )  # fmt: skip

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, lr: float) -> float:
        return self.descent.step(lr)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        if self.reference_model is None:
            return merged_weights(self.model)
        return ((name, p.detach()) for name, p in self.model.named_parameters())

    def state(self) -> dict[str, Tensor]:
        if self._workers.rank:
            return {}
        tensors = {} if self.reference_model is None else module_tensors("policy", self.model)
        tensors |= {f"policy/{name}": master for name, master in self.descent.masters.items()}
        return tensors | optimizer_tensors("policy_optimizer", self.descent.optimizer)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.restore_weights(tensors)
        restore_optimizer("policy_optimizer", self.descent.optimizer, tensors)

    @torch.no_grad()
    def restore_weights(self, tensors: dict[str, Tensor]) -> None:
        """What `restore` does, but for the optimiser: to look at the policy as it was."""
        if self.reference_model is not None:
            restore_module("policy", self.model, tensors)
        for name, master in self.descent.masters.items():
            master.copy_(tensors[f"policy/{name}"])
        self.descent.round_masters()

    def export(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        if self._workers.rank == 0:
            save_model(folder, self.model, tokenizer)
