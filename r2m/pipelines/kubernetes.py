"""Manifests of a pipeline for Kubernetes: plain YAML, to read, edit and apply.

A CronJob whose pod makes a RayJob of KubeRay's for each time and waits for it (r2m.pipelines.rayjob), with what it
reads and the rights that it needs; or, alpha in KubeRay, a RayCronJob.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from r2m.errors import UserError, shown
from r2m.pipelines import kubernetes_parts as parts
from r2m.pipelines.kubernetes_parts import FOLDER, Pods
from r2m.pipelines.rayjob import TEMPLATE, Manifest
from r2m.pipelines.schema import Pipeline, Schedule

LONGEST_RESOURCE = 28  # KubeRay takes 47 characters for a RayJob, which adds its time and attempt
HEADER = """\
# {name} on Kubernetes: kubectl apply -f FILE. KubeRay's operator {kuberay} and the claim {claim} have to be there;
# {image} is this package with Ray {ray} (pipelines/Containerfile), the same in all pods.
"""
MISSED = """\
# missed: all is not for Kubernetes: it makes up for the last time that was missed, {hours:g} h at most.
"""
ALPHA = """\
# Alpha in KubeRay {kuberay}, behind the operator's feature gate RayCronJob: it has no concurrency policy, no deadline
# and no history. Two at once are kept apart by the pipeline's own lock, and what is due is worked out when it runs.
"""
KUBERAY = "1.7"


def manifest(pipeline: Pipeline, file: Path, arguments: Sequence[str], pods: Pods, alpha: bool = False) -> str:
    """Of a pipeline with a schedule. `arguments`: of `r2m pipeline run`, but for the file, the time, the storage and
    the address. Raises UserError where Kubernetes cannot do what the file says."""
    cron = kubernetes_cron(pipeline.schedule)
    resource = resource_name(pipeline.name)
    name = f"{pipeline.name}.yaml"  # the file's own needn't be one that a ConfigMap can have
    words = ["r2m", "pipeline", "run", f"{FOLDER}/{name}", *arguments, "--storage", pods.storage]
    spec = parts.rayjob_spec(resource, shlex.join([*words, "--address", "auto"]), pods)
    labels = {"app.kubernetes.io/name": "r2m-pipeline", "app.kubernetes.io/instance": resource}
    about = {"name": resource, "namespace": pods.namespace, "labels": labels}
    contents = {name: file.read_text(encoding="utf-8")}
    versions = {"kuberay": KUBERAY, "ray": metadata.version("ray")}
    text = HEADER.format(name=pipeline.name, claim=pods.claim, image=pods.image, **versions)
    if alpha:
        spec["entrypoint"] += " --tick due"
        ray_cron = parts.ray_cron_job(about, cron, pipeline.schedule, spec)
        return text + ALPHA.format(**versions) + _documents([parts.config_map(about, contents), ray_cron])
    if pipeline.schedule.missed == "all":
        text += MISSED.format(hours=pipeline.schedule.late_hours)
    template = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": about | {"annotations": {"r2m/pipeline": pipeline.name}},
        "spec": spec,
    }
    contents[TEMPLATE] = _yaml(template)
    return text + _documents(
        [
            *parts.rights(about),
            parts.config_map(about, contents),
            parts.cron_job(about, cron, pipeline.schedule, pods),
        ]
    )


def resource_name(name: str) -> str:
    """A pipeline's, as Kubernetes allows it. Raises UserError where it can't be."""
    resource = re.sub(r"[_.]", "-", name.lower())
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", resource) or len(resource) > LONGEST_RESOURCE:
        raise UserError(
            f"name = {shown(name)}: for Kubernetes a letter first and no sign last are allowed, {LONGEST_RESOURCE} "
            "characters at most"
        )
    return resource


_FIELD = re.compile(r"(\*|(\d+|[A-Za-z]{3})-(\d+|[A-Za-z]{3}))(/\d+)?|\d+|[A-Za-z]{3}")


def kubernetes_cron(schedule: Schedule) -> str:
    """The expression, if Kubernetes reads it as the pipeline does. Raises UserError where it does not, or is none."""
    if schedule.cron is None:
        raise UserError("schedule.cron: there is none in the file, and Kubernetes needs one")
    said = f"schedule.cron = {shown(schedule.cron)}"
    fields = schedule.cron.split()
    if len(fields) != 5 or not all(_FIELD.fullmatch(part) for field in fields for part in field.split(",")):
        raise UserError(
            f"{said}: Kubernetes takes five fields of *, numbers, names, ranges, steps of those, and lists"
        )
    if re.search(r"(?<![\d/])7", fields[4]):
        raise UserError(f"{said}: Kubernetes does not take 7 for Sunday; write 0, or Sun")
    days = fields[2], fields[4]
    if any(day.startswith("*/") for day in days) and not any(day == "*" for day in days):
        raise UserError(f"{said}: Kubernetes takes days of the month or of the week with */ for either, not for both")
    return schedule.cron


class _Dumper(yaml.SafeDumper):
    """Lines as lines, and nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, "|" if "\n" in text else None)
)


def _yaml(tree: Manifest) -> str:
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _documents(trees: Sequence[Manifest]) -> str:
    return "".join(f"---\n{_yaml(tree)}" for tree in trees)
