"""Manifests for Kubernetes: what they say, and whether Kubernetes and KubeRay define all of it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from kubernetes_fields import ROOT, mistakes, printed
from packaging.specifiers import SpecifierSet

from r2m.errors import UserError
from r2m.pipelines.kubernetes import kubernetes_cron, manifest, resource_name
from r2m.pipelines.kubernetes_parts import UNPRIVILEGED, Pods
from r2m.pipelines.rayjob import Manifest
from r2m.pipelines.schema import Schedule
from r2m.pipelines.spec import load_pipeline
from tests.conftest import Command

PIPELINE = """
parameters: {{posts: 64}}
schedule: {{cron: "30 2 * * 1-5", time_zone: Europe/Zurich, missed: {missed}, late_hours: {late}}}
steps:
  sft: {{use: sft, recipe: forum, set: {{task.posts: "${{posts}}"}}}}
"""
PODS = Pods("registry.example/r2m:1", "claim")


def made(folder: Path, *arguments: str, pods: Pods = PODS, alpha: bool = False, **own: object) -> dict[str, Manifest]:
    """A manifest's documents and the RayJob that comes of it, by kind."""
    file = folder / "every_night.yaml"
    file.write_text(PIPELINE.format(**{"missed": "latest", "late": 1.5} | own))
    documents = printed(manifest(load_pipeline(file), file, arguments, pods, alpha))
    assert len({document["kind"] for document in documents}) == len(documents)
    return {document["kind"]: document for document in documents}


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("pods", [PODS, Pods("i", "c", worker_pods=3, gpus=2)])
def test_kubernetes_and_kuberay_define_every_field(tmp_path: Path, pods: Pods, alpha: bool) -> None:
    for document in made(tmp_path, pods=pods, alpha=alpha).values():
        assert mistakes(document) == []


def test_what_they_define_is_told_from_what_they_do_not(tmp_path: Path) -> None:
    cron_job = made(tmp_path)["CronJob"]
    cron_job["spec"]["startingDeadlineSeconds"] = "3600"
    cron_job["spec"]["suspended"] = True
    del cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["name"]
    assert set(mistakes(cron_job)) == {
        "spec.startingDeadlineSeconds = '3600': not a integer", "spec.suspended: no such field",
        "spec.jobTemplate.spec.template.spec.containers[].name: required",
    }  # fmt: skip


def test_a_cron_job_of_the_schedule(tmp_path: Path) -> None:
    there = made(tmp_path)
    spec = there["CronJob"]["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("30 2 * * 1-5", "Europe/Zurich")
    assert (spec["concurrencyPolicy"], spec["startingDeadlineSeconds"]) == ("Forbid", 5400)
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"] == ["python", "-m", "r2m.pipelines.rayjob", "/pipeline"]
    assert pod["serviceAccountName"] == there["ServiceAccount"]["metadata"]["name"]
    assert there["Role"]["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get"]}]
    assert there["ConfigMap"]["data"]["every_night.yaml"] == (tmp_path / "every_night.yaml").read_text()


def test_late_by_seconds_is_by_a_minute(tmp_path: Path) -> None:
    """Kubernetes looks every 10 s: with a deadline below that none might ever start."""
    assert made(tmp_path, late=0.001)["CronJob"]["spec"]["startingDeadlineSeconds"] == 60


def test_a_rayjob_of_the_time_and_the_attempt(tmp_path: Path) -> None:
    pods = Pods("image", "claim", "/shared", "ml", worker_pods=2, cpus=8, memory="64Gi", gpus=1)
    job = made(tmp_path, "--set", "posts=[1, 2]", pods=pods)["RayJob"]
    assert job["metadata"]["namespace"] == "ml"
    assert job["spec"]["jobId"] == "every_night-20261201T0300Z-a1"
    assert job["spec"]["entrypoint"] == (
        "r2m pipeline run /pipeline/every_night.yaml --set 'posts=[1, 2]' --storage /shared --address auto "
        "--tick 2026-12-01T03:00:00+00:00"
    )
    cluster = job["spec"]["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["replicas"] == 2
    for group in (cluster["headGroupSpec"], workers):
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"] == {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "1"}
        assert {"name": "storage", "mountPath": "/shared"} in container["volumeMounts"]


def test_alpha_works_out_what_is_due_when_it_runs(tmp_path: Path) -> None:
    there = made(tmp_path, alpha=True)
    assert there.keys() == {"ConfigMap", "RayCronJob"}
    spec = there["RayCronJob"]["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("30 2 * * 1-5", "Europe/Zurich")
    assert spec["jobTemplate"]["entrypoint"].endswith(" --tick due")
    assert "jobId" not in spec["jobTemplate"]  # each needs one of its own, and KubeRay gives it


def test_all_that_was_missed_is_not_for_kubernetes(tmp_path: Path) -> None:
    file = tmp_path / "every_night.yaml"
    for missed, said in (("latest", False), ("all", True)):
        file.write_text(PIPELINE.format(missed=missed, late=1))
        assert ("missed: all" in manifest(load_pipeline(file), file, [], PODS).split("---")[0]) is said


@pytest.mark.parametrize(
    "cron", ["0 3 * * *", "*/15 8-18/2 1,15 jan-mar *", "5 4 * * mon,Wed", "0 0 1 * 1", "0 0 */7 * *"]
)
def test_what_kubernetes_reads_as_we_do(cron: str) -> None:
    assert kubernetes_cron(Schedule.model_construct(cron=cron)) == cron


@pytest.mark.parametrize(
    ("cron", "why"),
    [
        (None, "there is none"), ("0 3 * * 7", "write 0, or Sun"), ("0 3 * * 5-7", "write 0, or Sun"),
        ("0 3 L * *", "five fields of"), ("0 3 * * 5#3", "five fields of"), ("0 0 3 * * *", "five fields of"),
        ("5/15 * * * *", "five fields of"), ("0 3 */2 * 1", "not for both"), ("0 3 1 * */2", "not for both"),
    ],
)  # fmt: skip
def test_what_kubernetes_would_read_otherwise(cron: str | None, why: str) -> None:
    with pytest.raises(UserError, match=why):
        kubernetes_cron(Schedule.model_construct(cron=cron))


def test_names_that_kuberay_takes() -> None:
    assert resource_name("Every_night.v2") == "every-night-v2"
    assert len(resource_name("a" * 28) + "-20261201t0300z-a99") == 47
    for name in ("a" * 29, "2nd", "night_"):
        with pytest.raises(UserError, match=f"name = '{name}'"):
            resource_name(name)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--image", "a b"),
        ("--storage-claim", "A"),
        ("--storage", "here"),
        ("--namespace", "a_b"),
        ("--memory", "16 GB"),
    ],
)
def test_a_wrong_option_is_one_line(r2m: Command, tmp_path: Path, option: str, value: str) -> None:
    (tmp_path / "every_night.yaml").write_text(PIPELINE.format(missed="all", late=1))
    options = {"--image": "image", "--storage-claim": "claim"} | {option: value}
    words = [word for pair in options.items() for word in pair]
    code, out, err = r2m("pipeline", "manifest", str(tmp_path / "every_night.yaml"), *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {option} '{value}': expected ")


def test_the_command_prints_the_manifest(r2m: Command, tmp_path: Path) -> None:
    (tmp_path / "every_night.yaml").write_text(PIPELINE.format(missed="all", late=1))
    file = str(tmp_path / "every_night.yaml")
    code, out, _ = r2m("pipeline", "manifest", file, "--image", "image", "--storage-claim", "claim", "--gpus", "2")
    assert code == 0
    kinds = [tree["kind"] for tree in yaml.safe_load_all(out)]
    assert kinds == ["ServiceAccount", "Role", "RoleBinding", "ConfigMap", "CronJob"]
    clock = ["--cron", "0 4 * * *", "--time-zone", "UTC", "--alpha-raycronjob"]
    code, out, _ = r2m("pipeline", "manifest", file, "--image", "image", "--storage-claim", "claim", *clock)
    assert code == 0
    *_, cron_job = yaml.safe_load_all(out)
    assert (cron_job["kind"], cron_job["spec"]["schedule"]) == ("RayCronJob", "0 4 * * *")
    told = "--cron '0 4 * * *' --time-zone UTC --storage /storage --address auto --tick due"
    assert cron_job["spec"]["jobTemplate"]["entrypoint"].endswith(told)


def test_the_containerfile_has_what_the_package_is_made_of() -> None:
    """As far as can be told without a container engine."""
    text = (ROOT / "pipelines" / "Containerfile").read_text()
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for name in line.split()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert copied >= {
        "pyproject.toml",
        "constraints.txt",
        "r2m",
        project["project"]["readme"],
        "LICENSE",
        "dashboards",
    }
    assert all((ROOT / name).exists() for name in copied)
    (python,) = re.findall(r"^FROM python:([\d.]+)-slim$", text, re.MULTILINE)
    assert python in SpecifierSet(project["project"]["requires-python"])
    assert f"USER {UNPRIVILEGED}\n" in text


def test_it_prints_what_the_document_shows(r2m: Command) -> None:
    text = (ROOT / "docs" / "pipelines.md").read_text()
    (shown,) = [block for block in re.findall("```yaml\n(.*?)```", text, re.DOTALL) if "concurrencyPolicy" in block]
    shown = "".join(re.sub(" +#.*", "", line) + "\n" for line in shown.splitlines())
    file = str(ROOT / "pipelines" / "forum_nightly.yaml")
    code, said, _ = r2m("pipeline", "manifest", file, "--image", "IMAGE", "--storage-claim", "r2m-storage")
    assert code == 0
    assert shown in said
