"""AdamW on fp32 weights, whatever the parameters compute in."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from r2m.workers import Workers


class Descent:
    """The optimiser of some parameters: those that are trained, of all workers alike.

    fp32 parameters are updated as they are. Of others an fp32 master is kept (Micikevicius et al., 2018, Sec. 3.1):
    gradients are added up in it, AdamW moves it, and the parameter is its rounding. An update that is less than half
    of a bfloat16 parameter's last digit, 0.4 % of it, is then not lost.
    """

    def __init__(
        self, named: Iterable[tuple[str, nn.Parameter]], lr: float, *, adam_eps: float, weight_decay: float,
        max_grad_norm: float, workers: Workers,
    ) -> None:  # fmt: skip
        self.trained = {name: p for name, p in named if p.requires_grad}
        self.masters: dict[str, Tensor] = {}
        for name, p in self.trained.items():
            self.masters[name] = p
            if p.dtype != torch.float32:
                self.masters[name] = master = p.detach().float().requires_grad_()
                p.register_post_accumulate_grad_hook(lambda p, master=master: _add_gradient(p, master))
        self._max_grad_norm, self._workers = max_grad_norm, workers
        self.optimizer = torch.optim.AdamW(
            self.masters.values(), lr, eps=adam_eps, weight_decay=weight_decay, fused=True
        )

    def step(self, lr: float | None = None) -> float:
        """One step down the gradients, summed over all workers and clipped; their norm before clipping.

        Nothing changes where that is not finite.
        """
        masters = list(self.masters.values())
        self._workers.sum_gradients(masters)
        norm = float(nn.utils.clip_grad_norm_(masters, self._max_grad_norm))
        if norm < float("inf"):
            for group in self.optimizer.param_groups if lr is not None else ():
                group["lr"] = lr
            self.optimizer.step()
            self.round_masters()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    @torch.no_grad()
    def round_masters(self) -> None:
        """Bring the parameters to where their masters are."""
        for name, p in self.trained.items():
            if self.masters[name] is not p:
                p.copy_(self.masters[name])


def _add_gradient(p: Tensor, master: Tensor) -> None:
    assert p.grad is not None
    if master.grad is None:
        master.grad = p.grad.float()
    else:
        master.grad += p.grad
    p.grad = None
