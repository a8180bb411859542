"""A run as a Ray Train trainer: what its workers do, and no process that they have no use for."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r2m.config import Config, validate
from r2m.imports import importing
from r2m.training.plan import resolve_device

if TYPE_CHECKING:
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

UNUSED_CALLBACKS = (  # of Ray Train; for each it starts a process, as the worker's starts
    "DatasetsCallback",  # there are none
    "PlacementGroupCleanerCallback",  # a controller's placement group ends with it anyway
)


def ray_trainer(config: Config, folder: Path, models: tuple[str, str], gpu_share: float = 1.0) -> DataParallelTrainer:
    """The run in `folder` as a Ray Train trainer; `gpu_share`: of a GPU, for each worker.

    A process group is for several workers. With one, neither this process nor Ray's controller loads torch.
    """
    import ray
    from ray.train import BackendConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    class Trainer(DataParallelTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            return [c for c in super()._create_default_callbacks() if type(c).__name__ not in UNUSED_CALLBACKS]

    r, engines = config.run, config.rollout.gpus
    gpu = resolve_device(r, (ray.cluster_resources().get("GPU", 0) - engines) / gpu_share) == "gpu"
    gpus = gpu_share + engines // r.workers  # the worker's, and those of its engine beside them
    settings = {"config": config.model_dump(mode="json"), "folder": str(folder), "models": models, "gpu": gpu}
    backend: BackendConfig = BackendConfig()
    if r.workers > 1:
        from ray.train.torch import TorchConfig

        backend = TorchConfig(backend="nccl" if gpu else "gloo")
    return Trainer(
        _worker,
        train_loop_config=settings,
        backend_config=backend,
        scaling_config=ScalingConfig(
            num_workers=r.workers, use_gpu=gpu, resources_per_worker={"CPU": 1.0, **({"GPU": gpus} if gpu else {})}
        ),
        run_config=RunConfig(
            name=folder.name,
            storage_path=str(folder / "ray"),
            failure_config=FailureConfig(max_failures=r.max_failures),
        ),
    )


def start_coordinator() -> None:
    """Each controller asks for this process, of the name that is looked for, and waits until it has started: so it
    starts beside the controller. It has no public name; where Ray has it no longer, nothing is lost but seconds."""
    with suppress(ImportError):
        from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
            get_or_create_autoscaling_coordinator,
        )

        get_or_create_autoscaling_coordinator()


def _worker(settings: dict[str, Any]) -> None:
    """In a Ray Train worker."""
    with importing(without=("sklearn", "scipy")):  # seconds, for parts of transformers that nothing here uses
        from r2m.training.loop import run_loop
    from r2m.training.gauges import live_gauges
    from r2m.training.vllm_engine import RayEngine
    from r2m.workers import Workers

    device: Any = "cpu"
    if settings["gpu"]:
        from ray.train.torch import get_device

        device = get_device()
    config, folder, models = validate(settings["config"]), Path(settings["folder"]), settings["models"]
    workers = Workers.here()  # Ray's own context knows the ranks, too: to ask for it loads all of Ray Tune
    with live_gauges(config, folder) if workers.rank == 0 else nullcontext():
        run_loop(config, folder, models, workers, device, RayEngine)
