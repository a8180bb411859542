"""The Ray cluster that runs go on: one that is there, or one of our own."""

import logging
import os
import socket
import threading
from importlib import import_module
from typing import Any

from r2m.errors import UserError
from r2m.imports import importing

RAY_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # a one-worker run starts and ends 5 s sooner than with 2.0
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
OWN_SETTINGS = {  # of a cluster of our own
    # Nobody brings back the head: without it, end soon (60 s else) and be resumed.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    "RAY_prestart_worker_first_driver": "0",  # in an environment that is none of ours: never used
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process that looks out for the end of a rented node
}


def connect(address: str | None, workers: int) -> None:
    """Join the cluster at `address`, or start one on this machine with room for the workers."""
    settings = RAY_SETTINGS | (OWN_SETTINGS if address is None else {})
    os.environ.update({k: v for k, v in settings.items() if k not in os.environ})
    with importing():
        import ray

    if ray.is_initialized():
        return
    threading.Thread(target=_load_ray_train, daemon=True).start()  # while Ray starts
    # One torch thread a worker, set before it imports torch.
    options: dict[str, Any] = {"runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1"}}, "log_to_driver": False}
    if address is None:
        options |= {"num_cpus": max(os.cpu_count() or 1, workers), "include_dashboard": False}
        options |= {"object_store_memory": 2**28}  # nothing large goes through Ray's object store
    try:
        # "local": never somebody else's cluster that happens to run on this machine.
        ray.init(address=address or "local", logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        if address is None:
            raise
        raise UserError(f"--address {address!r}: no Ray cluster answers there ({error})") from None


def _load_ray_train() -> None:
    with importing():
        import_module("ray.train.v2.api.data_parallel_trainer")


def check_address(address: str | None) -> None:
    """Raises UserError where nothing listens at [ray://]host:port: Ray itself would try for minutes."""
    if address is None or address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(f"--address {address!r}: no Ray cluster answers at host:port ({error})") from None
