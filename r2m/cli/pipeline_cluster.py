"""Pipelines on clusters: as a job of Ray's, as manifests for Kubernetes."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from r2m.cli.common import say
from r2m.cli.options import Storage, TrackingUri, storage_path
from r2m.cli.pipeline_options import Cron, File, SetParameter, Tick, TimeZone
from r2m.config.paths import absolute

app = typer.Typer()


@app.command()
def submit(
    file: File,
    address: Annotated[str, Option(metavar="URL", help="a Ray cluster's dashboard: http://HEAD:8265")],
    tick: Tick = None,
    set_: SetParameter = None,
    cron: Cron = None,
    time_zone: TimeZone = None,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Run a pipeline as a job of a Ray cluster's, once however often this is called, and follow it. Ctrl-C detaches.

    The exit code is the job's. The storage is a folder that all of the cluster's machines see."""
    from r2m.pipelines.ray_jobs import AskedJob, follow, job_client, times_of
    from r2m.pipelines.ray_jobs import submit as submit_job
    from r2m.pipelines.spec import load_pipeline, on_clock

    asked = on_clock(load_pipeline(file, set_ or []), cron, time_zone)
    stamp, told = times_of(tick, asked.schedule, datetime.now(UTC))
    arguments = [*told, *_passed_on(set_, cron, time_zone, tracking_uri), "--storage", storage_path(storage)]
    client = job_client(address)
    job, new = submit_job(client, AskedJob(asked.name, Path(absolute(file)), stamp, arguments, tick is not None))
    say(f"{job}: {'submitted' if new else 'there already'}; following it (Ctrl-C detaches, the job goes on)")
    again = f"ray job logs --address {address} --follow {job}"
    try:
        code, state = follow(client, job, _write)
    except KeyboardInterrupt:
        say(f"detached; {job} goes on. Follow it: {again}. Stop it: ray job stop --address {address} {job}")
        raise typer.Exit(130) from None
    say(f"{job}: {state}")
    raise typer.Exit(code)


@app.command()
def manifest(
    file: File,
    image: Annotated[str, Option(metavar="IMAGE", help="with this package: pipelines/Containerfile makes one")],
    storage_claim: Annotated[str, Option(metavar="PVC", help="the claim of the volume with the storage")],
    storage: Annotated[str, Option(metavar="DIR", help="where the volume is, in a pod")] = "/storage",
    namespace: Annotated[str, Option(help="of all that is made")] = "default",
    worker_pods: Annotated[int, Option(min=0, help="Ray's, beside the head")] = 0,
    cpus: Annotated[int, Option(min=1, help="of each of Ray's pods")] = 4,
    memory: Annotated[str, Option(metavar="QUANTITY", help="of each of Ray's pods")] = "16Gi",
    gpus: Annotated[int, Option(min=0, help="of each of Ray's pods")] = 0,
    set_: SetParameter = None,
    cron: Cron = None,
    time_zone: TimeZone = None,
    tracking_uri: TrackingUri = None,
    alpha_raycronjob: Annotated[bool, Option("--alpha-raycronjob", help="KubeRay's own clock, alpha there")] = False,
) -> None:
    """Print a pipeline's manifest for Kubernetes: a CronJob whose pod makes a RayJob and waits for it."""
    from r2m.pipelines.kubernetes import manifest as text_of
    from r2m.pipelines.kubernetes_parts import Pods
    from r2m.pipelines.spec import load_pipeline, on_clock

    asked = on_clock(load_pipeline(file, set_ or []), cron, time_zone)
    pods = Pods(image, storage_claim, storage, namespace, worker_pods, cpus, memory, gpus)
    arguments = _passed_on(set_, cron, time_zone, tracking_uri)
    sys.stdout.write(text_of(asked, Path(absolute(file)), arguments, pods, alpha_raycronjob))


def _passed_on(
    set_: list[str] | None, cron: str | None, time_zone: str | None, tracking_uri: str | None
) -> list[str]:
    """To `r2m pipeline run`."""
    options = {"--cron": cron, "--time-zone": time_zone, "--tracking-uri": tracking_uri}
    words = [word for option, value in options.items() if value is not None for word in (option, value)]
    return [*(word for setting in set_ or () for word in ("--set", setting)), *words]


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
