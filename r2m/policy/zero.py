"""DeepSpeed's ZeRO (Rajbhandari et al., 2020, arXiv:1910.02054): models whose optimiser states, gradients and, at its
third stage, weights are spread over the workers. DeepSpeed is imported where there is one.

All workers have to run the same modules, in the same order: a module's weights are gathered by all of them.
"""

import copy
import ctypes
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import PreTrainedModel

from r2m.config import Policy
from r2m.limits import BUCKET
from r2m.policy.output import unused_ids

_M_MMAP_THRESHOLD = -3  # malloc.h's
KEEP_WHOLE = 100_000  # values: a smaller weight is not spread; DeepSpeed's own default
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Spread:
    """`model` with its engine, which runs it by `forward`: a module that has `model` in it, or `model` itself.

    With an optimiser it is trained, at the stage of `settings.sharding`; without one it is frozen, at stage 3.
    """

    def __init__(
        self, model: PreTrainedModel, forward: nn.Module, settings: Policy, device: torch.device | str, *,
        optimizer: MakeOptimizer | None = None, max_grad_norm: float = 0.0,
    ) -> None:  # fmt: skip
        deepspeed = _started(torch.device(device))
        if settings.sharding == "zero3" and torch.device(device).type == "cpu":
            _give_freed_memory_back()
        self.model = model
        self._plain = _hollow(model, device) if settings.sharding == "zero3" else model
        self._move_rest(device)
        self.engine, *_ = deepspeed.initialize(
            model=forward, optimizer=optimizer, config=_config(settings, model.dtype, max_grad_norm),
            model_parameters=[p for p in model.parameters() if p.requires_grad], dist_init_required=False,
        )  # fmt: skip
        self._move_rest(device)

    def _move_rest(self, device: torch.device | str) -> None:
        """To the device what is no parameter: ZeRO places these, one after another."""
        for model in (self.model, self._plain):
            for module in model.modules():
                for name, buffer in module.named_buffers(recurse=False):
                    module._buffers[name] = buffer.to(device)
            if (unused_V := unused_ids(model)) is not None:
                model.unused_ids_V = unused_V.to(device)

    @contextmanager
    def whole(self) -> Iterator[PreTrainedModel]:
        """The model with all weights on this worker and without hooks, for reading alone. All workers enter and
        leave; in between they need not do the same."""
        if self._plain is self.model:
            yield self.model
            return
        pairs = list(zip(self.model.parameters(), self._plain.parameters(), strict=True))
        with self.gathered([p for p, _ in pairs]):
            for p, plain in pairs:
                plain.data = p.data
            try:
                yield self._plain
            finally:
                for _, plain in pairs:
                    plain.data = plain.data.new_empty(0)

    @contextmanager
    def gathered(self, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
        """The parameters whole on each worker. All workers enter and leave."""
        if self._plain is self.model:
            yield
            return
        import deepspeed

        self.engine.optimizer.empty_partition_cache()
        with deepspeed.zero.GatheredParameters(list(parameters)):
            yield

    @property
    def masters(self) -> list[Tensor]:
        """This worker's part of the trained weights, fp32 and flat."""
        optimizer = self.engine.optimizer
        if self._plain is self.model:
            return list(optimizer.single_partition_of_fp32_groups)
        return list(optimizer.fp32_partitioned_groups_flat)

    def round_masters(self) -> None:
        """Bring the weights to where the masters are, as a step does at its end."""
        optimizer = self.engine.optimizer
        if self._plain is self.model:
            optimizer.update_lp_params()
            return
        self.engine.optimizer.empty_partition_cache()
        for i in range(len(self.masters)):
            optimizer._reassign_or_swap_out_partitioned_parameters(i)


def _hollow(model: PreTrainedModel, device: torch.device | str) -> PreTrainedModel:
    """A copy of a model without its weights."""
    empty = {p: torch.empty(0, dtype=p.dtype, device=device) for p in model.parameters()}
    return copy.deepcopy(model, {id(p): nn.Parameter(x, requires_grad=False) for p, x in empty.items()})


def _give_freed_memory_back() -> None:
    """Let glibc map what is of 1 MiB and more by itself, so that the system has it back once it is freed.

    Else it does so from the largest block on that was ever freed, up to 32 MiB: weights that come and go with each
    layer then lie between others and leave holes, measured up to a quarter of a worker's peak.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**20)


def _started(device: torch.device) -> Any:
    """DeepSpeed, on the device's kind, over the process group that there is, or one of this process alone."""
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    os.environ.setdefault("LOCAL_SIZE", str(dist.get_world_size()))
    os.environ.setdefault("LOCAL_RANK", str(device.index or 0))
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel("ERROR")
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # for inference; a compiler would have to build it
    deepspeed.init_distributed(dist_backend=dist.get_backend(), dist_init_required=False, verbose=False)
    return deepspeed


def _config(settings: Policy, dtype: torch.dtype, max_grad_norm: float) -> dict[str, Any]:
    stage, half = int(settings.sharding[-1]), dtype == torch.bfloat16
    if stage == 1 and half:  # DeepSpeed's other optimiser for these checks no overflow
        stage = 2
    zero: dict[str, Any] = {
        "stage": stage, "overlap_comm": False, "reduce_bucket_size": BUCKET, "allgather_bucket_size": BUCKET,
        "stage3_prefetch_bucket_size": BUCKET, "stage3_param_persistence_threshold": KEEP_WHOLE,
    }  # fmt: skip
    if settings.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if settings.offload == "all":
        zero["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "zero_optimization": zero,
        "train_micro_batch_size_per_gpu": 1,  # asked for, and not used: losses are normalised
        "managed_gradient_accumulation": False,  # any number of backwards to a step
        "gradient_clipping": max_grad_norm,
        "zero_allow_untested_optimizer": True,  # torch's AdamW
        "zero_force_ds_cpu_optimizer": False,  # which a compiler would have to build
        "bf16": {"enabled": half, "check_grad_overflow": True},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
    }
