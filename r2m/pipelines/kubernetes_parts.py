"""What a pipeline is made of on Kubernetes: the parts of its manifest, as trees."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata

from r2m.errors import UserError, shown
from r2m.pipelines.rayjob import OWN_CODES, Manifest
from r2m.pipelines.schema import Schedule

FOLDER = "/pipeline"  # in a pod: where the file is
UNPRIVILEGED = 1000  # user and group of the image


@dataclass(frozen=True)
class Pods:
    """Where it runs. `storage`: the folder, in a pod, at which the volume of the claim is. `memory`: a quantity as
    Kubernetes writes it. cpus, memory and gpus are of each of Ray's pods: the head and `worker_pods` more."""

    image: str
    claim: str
    storage: str = "/storage"
    namespace: str = "default"
    worker_pods: int = 0
    cpus: int = 4
    memory: str = "16Gi"
    gpus: int = 0

    def __post_init__(self) -> None:
        """Raises UserError for what Kubernetes would refuse."""
        for option, value, allowed, what in (
            ("--image", self.image, r"[^\s]+", "the image's name"),
            ("--storage-claim", self.claim, r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?", "a claim's name"),
            ("--storage", self.storage, r"/[\w./-]+", "an absolute path"),
            ("--namespace", self.namespace, r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", "a namespace's name"),
            ("--memory", self.memory, r"[1-9]\d*(Ki|Mi|Gi|Ti)", "a quantity such as 16Gi"),
        ):
            if not re.fullmatch(allowed, value, re.ASCII):
                raise UserError(f"{option} {shown(value)}: expected {what}")


def cron_job(about: Manifest, cron: str, schedule: Schedule, pods: Pods) -> Manifest:
    container = {
        "name": "pipeline",
        "image": pods.image,
        "command": ["python", "-m", "r2m.pipelines.rayjob", FOLDER],
        "env": [
            _of_pod("JOB_NAME", "metadata.labels['batch.kubernetes.io/job-name']"),
            _of_pod("JOB_UID", "metadata.labels['batch.kubernetes.io/controller-uid']"),
            _of_pod("NAMESPACE", "metadata.namespace"),
        ],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False},
        "volumeMounts": [_mount("file", FOLDER, read_only=True)],
    }
    pod = {
        "serviceAccountName": about["name"],
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "runAsUser": UNPRIVILEGED},
        "containers": [container],
        "volumes": [{"name": "file", "configMap": {"name": about["name"]}}],
    }
    final = [code for code in OWN_CODES if code]  # its own: another pod would hear the same
    failures = [
        {"action": "FailJob", "onExitCodes": {"containerName": "pipeline", "operator": "In", "values": final}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},  # moved
    ]
    job = {"backoffLimit": 3, "podFailurePolicy": {"rules": failures}, "template": {"spec": pod}}
    spec = {
        "schedule": cron,
        "timeZone": schedule.time_zone,
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": max(60, round(3600 * schedule.late_hours)),  # below 10 s none might ever start
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"spec": job},
    }
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": about, "spec": spec}


def ray_cron_job(about: Manifest, cron: str, schedule: Schedule, rayjob_spec: Manifest) -> Manifest:
    spec = {"schedule": cron, "timeZone": schedule.time_zone, "jobTemplate": rayjob_spec}
    return {"apiVersion": "ray.io/v1", "kind": "RayCronJob", "metadata": about, "spec": spec}


def rayjob_spec(resource: str, entrypoint: str, pods: Pods) -> Manifest:
    """A cluster for this job alone."""
    cluster: Manifest = {
        "rayVersion": metadata.version("ray"),
        "authOptions": {"mode": "token"},
        "headGroupSpec": {"rayStartParams": {}, "template": {"spec": _ray_pod("ray-head", resource, pods)}},
    }
    if pods.worker_pods:
        workers = {key: pods.worker_pods for key in ("replicas", "minReplicas", "maxReplicas")}
        template = {"spec": _ray_pod("ray-worker", resource, pods)}
        cluster["workerGroupSpecs"] = [
            {"groupName": "workers", **workers, "rayStartParams": {}, "template": template}
        ]
    return {
        "entrypoint": entrypoint,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 60,
        "preRunningDeadlineSeconds": 3600,  # no room for its pods: not for ever
        "rayClusterSpec": cluster,
    }


def _ray_pod(name: str, resource: str, pods: Pods) -> Manifest:
    amounts = {"cpu": str(pods.cpus), "memory": pods.memory}
    amounts |= {"nvidia.com/gpu": str(pods.gpus)} if pods.gpus else {}
    container = {
        "name": name,
        "image": pods.image,
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": {"allowPrivilegeEscalation": False},
        "volumeMounts": [_mount("storage", pods.storage), _mount("file", FOLDER, read_only=True)],
    }
    return {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": UNPRIVILEGED, "fsGroup": UNPRIVILEGED},
        "containers": [container],
        "volumes": [
            {"name": "storage", "persistentVolumeClaim": {"claimName": pods.claim}},
            {"name": "file", "configMap": {"name": resource}},
        ],
    }


def rights(about: Manifest) -> list[Manifest]:
    """Of the CronJob's pod: to make RayJobs and look at them."""
    rbac, name = "rbac.authorization.k8s.io", about["name"]
    rule = {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get"]}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": about["namespace"]}
    binding = {"roleRef": {"apiGroup": rbac, "kind": "Role", "name": name}, "subjects": [subject]}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": about},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": about, "rules": [rule]},
        {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": about, **binding},
    ]


def config_map(about: Manifest, contents: dict[str, str]) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": contents}


def _of_pod(name: str, path: str) -> Manifest:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _mount(name: str, path: str, read_only: bool = False) -> Manifest:
    return {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}
