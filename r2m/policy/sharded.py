"""A policy that is spread over the workers by DeepSpeed's ZeRO."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r2m.config import Algorithm, Policy
from r2m.core.trajectories import Trajectories
from r2m.errors import UserError
from r2m.models.saving import save_model
from r2m.policy.forward import PolicyOutput, policy_forward
from r2m.policy.lora import adapters_off, merged_weights
from r2m.policy.state import under
from r2m.policy.zero import Spread
from r2m.workers import Workers

SHARD = "policy_shard"


class _Forward(nn.Module):
    """What an engine runs."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, t: Trajectories, temperature: float, entropy: bool) -> PolicyOutput:
        return policy_forward(self.model, t, temperature, entropy=entropy)


class ShardedPolicy:
    """See r2m.policy.policy.TrainedPolicy. `reference`: its frozen twin; None: the policy itself
    with its adapters off.

    Blocks are padded to the widest of all workers: these then run the same modules, in the same order, as ZeRO needs.
    """

    def __init__(
        self, model: PreTrainedModel, reference: PreTrainedModel | None, settings: Policy, algorithm: Algorithm,
        workers: Workers, device: torch.device | str,
    ) -> None:  # fmt: skip
        a = algorithm
        self.model, self.device, self.dtype, self._workers = model, torch.device(device), model.dtype, workers
        self._policy = Spread(
            model, _Forward(model), settings, device, max_grad_norm=a.max_grad_norm,
            optimizer=lambda trained: torch.optim.AdamW(
                trained, a.lr, eps=a.adam_eps, weight_decay=a.weight_decay, fused=True
            ),
        )  # fmt: skip
        self._engine, self._reference = self._policy.engine, reference
        self._spread_reference: Spread | None = None
        if reference is not None and settings.sharding == "zero3":
            self._spread_reference = Spread(reference, _Forward(reference), settings, device)

    def forward(self, block: Trajectories, temperature: float, *, entropy: bool = False) -> PolicyOutput:
        return self._aligned(self._engine, block, temperature, entropy)

    @torch.no_grad()
    def reference(self, block: Trajectories, temperature: float) -> PolicyOutput:
        if self._reference is None:
            with adapters_off(self.model):
                return self._aligned(self._engine, block, temperature, False)
        if self._spread_reference is not None:
            return self._aligned(self._spread_reference.engine, block, temperature, False)
        return policy_forward(self._reference, block, temperature, entropy=False)

    def _aligned(self, engine: nn.Module, t: Trajectories, temperature: float, entropy: bool) -> PolicyOutput:
        P, R = t.prompt_ids_NP.shape[1], t.response_ids_NKR.shape[-1]
        sizes = torch.tensor([[P, R]], device=self.device)
        left, right = (self._workers.gather(sizes).amax(0) - sizes[0]).tolist()
        padded = Trajectories(
            F.pad(t.prompt_ids_NP, (left, 0)), F.pad(t.prompt_mask_NP, (left, 0)),
            F.pad(t.response_ids_NKR, (0, right)), F.pad(t.response_mask_NKR, (0, right)),
            F.pad(t.sampler_log_probs_NKR, (0, right)), t.ended_NK,
        )  # fmt: skip
        out = engine(padded, temperature, entropy)
        return PolicyOutput(
            out.log_probs_NKR[..., :R], out.entropy_NKR[..., :R], out.prompt_hidden_NPD[:, left:],
            out.response_hidden_NKRD[:, :, : R - 1],
        )  # fmt: skip

    def backward(self, loss: Tensor) -> None:
        # The engine takes the mean over the workers, where the parts of a loss are to be summed.
        self._engine.backward(loss * self._workers.size, scale_wrt_gas=False)

    def step(self, lr: float) -> float:
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        self._engine.step()
        return float("inf") if self._engine.optimizer.overflow else float(self._engine.get_global_grad_norm())

    @contextmanager
    def whole(self, *, reference: bool = False) -> Iterator[PreTrainedModel]:
        if reference and self._spread_reference is not None:
            with self._spread_reference.whole() as model:
                yield model
        elif reference and self._reference is not None:
            yield self._reference
        else:
            with self._policy.whole() as model, adapters_off(model) if reference else nullcontext():
                yield model

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        if self._reference is None:
            yield from merged_weights(self.model, self._policy.gathered)
            return
        for name, p in self.model.named_parameters():
            with self._policy.gathered([p]):
                yield name, p.detach()

    def state(self) -> dict[str, Tensor]:
        """This worker's part of the fp32 weights and of AdamW's state."""
        tensors = {f"{SHARD}/of": torch.tensor([self._workers.rank, self._workers.size])}
        for i, master in enumerate(self._policy.masters):
            tensors[f"{SHARD}/{i}/master"] = master
            tensors |= {f"{SHARD}/{i}/{name}": value for name, value in self._adam(master).items()}
        return tensors

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Raises UserError where other workers wrote them."""
        found, own = tensors.get(f"{SHARD}/of"), [self._workers.rank, self._workers.size]
        if found is None or found.tolist() != own:
            of = "one part" if found is None else f"{found[1]} parts"
            raise UserError(f"run.workers = {own[1]}: the checkpoint has the policy in {of}, one for each worker")
        for i, master in enumerate(self._policy.masters):
            stored = dict(under(f"{SHARD}/{i}", tensors))
            master.copy_(stored.pop("master"))
            self._adam(master).update({name: value.to(master.device) for name, value in stored.items()})
        self._policy.round_masters()

    def _adam(self, master: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self._engine.optimizer.optimizer.state[master]
        return found

    def export(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        with self.whole() as model:
            if self._workers.rank == 0:
                save_model(folder, model, tokenizer)
