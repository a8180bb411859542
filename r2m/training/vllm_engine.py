"""A vLLM engine for each worker, as a Ray actor on the worker's node and in its placement group: it ends with the
worker. This end of it is r2m.policy.vllm_sampler.Engine, the other end has vLLM.

Weights go over in buckets of safetensors, in memory that both processes see and that is gone with the worker's.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from r2m.policy.vllm_sampler import Drawn, EngineDiedError, EngineSettings, Request

AT_ONCE = 2**30  # bytes of weights that are on their way at once, at least one tensor
CPU_CACHE = 2**28  # bytes of keys and values that wait beside a CPU


class VllmEngine:
    """In a process of its own, whose visible GPUs are the engine's."""

    def __init__(self, settings: EngineSettings) -> None:
        s = self._settings = settings
        # In this process: Ray then ends all of it. Several GPUs each need one of their own.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        from vllm import LLM
        from vllm.platforms import current_platform

        self._version: int | None = None
        self._sleeps, self._asleep = s.gpus == 0 and not current_platform.is_cpu(), False
        options: dict[str, Any] = {"gpu_memory_utilization": s.memory}
        if current_platform.is_cpu():
            options = {"kv_cache_memory_bytes": CPU_CACHE, "enforce_eager": True}
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "config.json").write_text(json.dumps(s.model_config))
            self._llm = LLM(
                folder, skip_tokenizer_init=True, load_format="dummy", dtype=s.dtype, max_model_len=s.context,
                generation_config="vllm", logprobs_mode="processed_logprobs", tensor_parallel_size=max(1, s.gpus),
                enable_sleep_mode=self._sleeps, worker_extension_cls="r2m.training.vllm_worker.Reloading", **options,
            )  # fmt: skip
        if s.unused_ids:
            self._llm.collective_rpc("r2m_never_draw", args=(list(s.unused_ids),))

    def begin_reload(self) -> None:
        self._wake()
        self._version = None
        self._llm.collective_rpc("r2m_begin_reload")

    def load(self, bucket: str) -> None:
        self._llm.collective_rpc("r2m_load", args=(bucket,))

    def end_reload(self, version: int) -> None:
        self._llm.collective_rpc("r2m_end_reload")
        self._llm.reset_prefix_cache()
        self._version = version

    def write(self, requests: Sequence[Request]) -> tuple[int | None, list[Drawn]]:
        from vllm import SamplingParams, TokensPrompt

        self._wake()
        s = self._settings
        outputs = self._llm.generate(
            [TokensPrompt(prompt_token_ids=prompt) for prompt, _ in requests],
            [
                SamplingParams(
                    temperature=0.0 if seed is None else s.temperature, seed=seed, max_tokens=s.max_response_tokens,
                    stop_token_ids=list(s.eos_ids), ignore_eos=True, logprobs=0, detokenize=False,
                )
                for _, seed in requests
            ],
            use_tqdm=False,
        )  # fmt: skip
        if self._sleeps:
            self._llm.sleep(level=1)
            self._asleep = True
        written = []
        for out in (o.outputs[0] for o in outputs):
            log_probs = [at[token].logprob for token, at in zip(out.token_ids, out.logprobs, strict=True)]
            written.append(Drawn(list(out.token_ids), log_probs))
        return self._version, written

    def _wake(self) -> None:
        if self._asleep:
            self._llm.wake_up()
            self._asleep = False


class RayEngine:
    """A VllmEngine in a Ray actor of the calling worker's. Raises RuntimeError where vLLM does not start."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._start()

    def load(self, weights: Iterator[tuple[str, Tensor]], version: int) -> None:
        self._ask("begin_reload")
        for bucket in buckets(weights):
            with shared(bucket) as path:
                self._ask("load", path)
        self._ask("end_reload", version)

    def write(self, requests: Sequence[Request]) -> tuple[int | None, list[Drawn]]:
        answer: tuple[int | None, list[Drawn]] = self._ask("write", requests)
        return answer

    def restart(self) -> None:
        import ray

        ray.kill(self._actor)
        self._start()

    def _start(self) -> None:
        import ray

        cls: Any = ray.remote(VllmEngine)
        self._actor = cls.options(num_cpus=0, num_gpus=0, **_beside_me(self._settings.gpus)).remote(self._settings)
        try:
            ray.get(self._actor.__ray_ready__.remote())
        except ray.exceptions.RayError as error:
            raise RuntimeError(f"rollout.engine = 'vllm': it does not start; {error}") from error

    def _ask(self, method: str, *arguments: Any) -> Any:
        import ray

        try:
            return ray.get(getattr(self._actor, method).remote(*arguments))
        except ray.exceptions.RayActorError as error:
            raise EngineDiedError(str(error).splitlines()[0]) from error
        except ray.exceptions.RayTaskError as error:
            if type(error.cause).__name__ != "EngineDeadError":  # a process of vLLM's own
                raise
            raise EngineDiedError(str(error.cause)) from error


def _beside_me(gpus: int) -> dict[str, Any]:
    """Options of an actor on this worker's node, in its placement group, that sees the GPUs of an engine."""
    import ray
    from ray.util.placement_group import placement_group_table
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    options: dict[str, Any] = {"scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}
    group = ray.util.get_current_placement_group()
    if group is not None:
        nodes: dict[int, str] = placement_group_table(group)["bundles_to_node_id"]
        bundle = next(i for i, node in nodes.items() if node == here)
        options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group, bundle)
    visible = engine_gpus([str(i) for i in ray.get_gpu_ids()], gpus)
    # On a CPU compiling one small function takes a minute, and nothing is faster for it.
    env = {"CUDA_VISIBLE_DEVICES": ",".join(visible)} if visible else {"TORCHDYNAMO_DISABLE": "1"}
    env |= {"OMP_NUM_THREADS": "1"}
    return options | {"runtime_env": {"env_vars": env}}


def engine_gpus(workers_own: Sequence[str], gpus: int) -> Sequence[str]:
    """Of a worker's GPUs those that its engine sees: all but the first, on which it trains; or that one, shared."""
    return sorted(workers_own, key=int)[1:] if gpus else workers_own


def buckets(weights: Iterator[tuple[str, Tensor]], size: int = AT_ONCE) -> Iterator[dict[str, Tensor]]:
    """Copies on the host, in parts of at most `size` bytes or of one tensor: the next may take their place."""
    bucket: dict[str, Tensor] = {}
    held = 0
    for name, weight in weights:
        if bucket and held + weight.nbytes > size:
            yield bucket
            bucket, held = {}, 0
        bucket[name] = weight.to("cpu", copy=True).contiguous()
        held += weight.nbytes
    if bucket:
        yield bucket


@contextmanager
def shared(bucket: dict[str, Tensor]) -> Iterator[str]:
    """A safetensors file in memory, by a path that other processes of this user on this node can read."""
    file = os.memfd_create("r2m-weights")
    try:
        with open(file, "wb", closefd=False) as out:
            out.write(safetensors.torch.save(bucket))
        yield f"/proc/{os.getpid()}/fd/{file}"
    finally:
        os.close(file)
