"""Room for a sweep: on this machine, or on the cluster that it joins."""

import os
from collections.abc import Iterable
from typing import Any

from r2m.config import Config
from r2m.errors import UserError
from r2m.sweeps.plan import SweepPlan, plan_sweep
from r2m.sweeps.schema import Sweep
from r2m.sweeps.spec import config_of
from r2m.training.cluster import connect
from r2m.training.machine import gpus_here
from r2m.training.preflight import check_vllm, plan_for, shapes_for


def plan_of(sweep: Sweep, extra: tuple[str, ...], address: str | None) -> SweepPlan:
    """How the sweep goes on this machine, or on the cluster at `address`, which this process joins.

    Raises UserError, with the arithmetic, where it can't.
    """
    cluster = None if address is None else _cluster(address)
    base = config_of(sweep, {}, sweep.seeds[0], *extra)
    if base.rollout.engine == "vllm" and address is None:
        check_vllm()
    if base.rollout.gpus:
        raise UserError(f"rollout.gpus = {base.rollout.gpus}: in a sweep vLLM shares the workers' GPUs; 0 is allowed")
    points = [*sweep.points(), *sweep.baselines.values()]
    configs = [sweep.build(params).model_copy(update={"run": base.run}) for params in points]
    gpus = None if cluster is None else cluster["gpus"]
    shapes = shapes_for(base)  # a sweep varies no model
    plans = [plan_for(config, address, gpus=gpus, shapes=shapes) for config in distinct(configs)]
    room = cluster or _machine()
    if address is None and (plans[0].workers > 1 or plans[0].gpus):
        room["cpus"] += 1  # drivers of nested trials only wait: see `connect`
    b = sweep.budget
    return plan_sweep(plans, runs=sweep.most_runs, concurrent=b.concurrent, gpu_share=b.gpu_share, **room)


def _machine() -> dict[str, Any]:
    gpus, gpu_memory = gpus_here()
    node_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    room = {"cpus": os.cpu_count() or 1, "gpus": gpus, "node_gib": node_gib}
    return room | ({"gpu_gib": gpu_memory / 2**30} if gpus else {})


def _cluster(address: str) -> dict[str, Any]:
    """Of the nodes that can run trials. How much memory their GPUs have, Ray does not say."""
    connect(address, 0)
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    return {
        "cpus": sum(node["CPU"] for node in nodes),
        "gpus": sum(node.get("GPU", 0) for node in nodes),
        "node_gib": min(node["memory"] + node.get("object_store_memory", 0) for node in nodes) / 2**30,
        "nodes": len(nodes),
    }


def distinct(configs: Iterable[Config]) -> list[Config]:
    """Of configurations that take the same room, one: what else varies in a sweep takes none."""
    rooms = {}
    for config in configs:
        a, r = config.algorithm, config.reward
        sizes = (a.queries, a.responses, a.microbatch, a.max_response_tokens)
        rooms[
            sizes,
            r.feedback,
            r.attention_width,
            r.shaping,
            r.par_references,
            r.ensemble,
            r.members,
            r.uncertainty_form,
        ] = config
    return list(rooms.values())
