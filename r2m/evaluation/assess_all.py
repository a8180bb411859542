"""Many finished runs assessed side by side: in processes of this machine, or on a cluster's nodes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from r2m.errors import UserError
from r2m.results.assessment import Assessment
from r2m.stages.progress import Progress, silent
from r2m.stages.side_by_side import side_by_side
from r2m.training.cluster import connect

PROCESSES = 2  # that assess side by side here

Assessed = Assessment | str  # or why there is none


def assess_all(
    storage: str, names: Sequence[str], prompts: int | None = None, address: str | None = None,
    progress: Progress = silent,
) -> dict[str, Assessed]:  # fmt: skip
    """Name -> its assessment without the rows. One that is there is read.

    `address`: of a Ray cluster, whose nodes see the storage; where it has GPUs, each run is given one.
    """
    found: dict[str, Assessed] = {}
    one_by_one = _here(storage, names, prompts) if address is None else _on_cluster(address, storage, names, prompts)
    for done, (name, known) in enumerate(one_by_one, 1):
        found[name] = known
        progress("assessing", done, len(names))
    return {name: found[name] for name in names}


def _here(storage: str, names: Sequence[str], prompts: int | None) -> Iterator[tuple[str, Assessed]]:
    for (_, name, _), known in side_by_side(_assess, [(storage, name, prompts) for name in names], PROCESSES):
        yield name, known


def _on_cluster(
    address: str, storage: str, names: Sequence[str], prompts: int | None
) -> Iterator[tuple[str, Assessed]]:
    connect(address, 0)
    import ray

    remote = ray.remote(num_cpus=1, num_gpus=min(1, ray.cluster_resources().get("GPU", 0)))(_assess)
    waiting = {remote.remote(storage, name, prompts): name for name in names}
    while waiting:
        (done, *_), _ = ray.wait(list(waiting))
        yield waiting.pop(done), ray.get(done)


def _assess(storage: str, name: str, prompts: int | None) -> Assessed:
    import torch

    from r2m.evaluation.assess import assess

    torch.set_num_threads(1)
    try:
        return replace(assess(storage, name, prompts=prompts), rows=[])
    except UserError as error:
        return str(error)
