"""What a CronJob's pod runs, as a process, against a server that speaks the two calls that it makes of Kubernetes."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from r2m.errors import UserError
from r2m.pipelines.rayjob import LOST_CODE, TEMPLATE, end_of_rayjob, stamp_of

TOKEN = "of-the-service-account"
MINUTES = 29_768_820  # since 1970: 2026-08-07T19:00Z
TICK = "20260807T1900Z"
RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
GONE = {"jobDeploymentStatus": "Failed", "reason": "AppFailed", "message": "Ray head pod not found."}
Pod = Callable[..., tuple[int, str]]


def failed(code: int) -> dict[str, str]:
    message = f"Job entrypoint command failed with exit code {code}, last available logs:\nboom"
    return {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": message}


class Kubernetes(ThreadingHTTPServer):
    """RayJobs of one namespace. `course`: the statuses that a RayJob has, one for each time that it is looked at; the
    last stays. `asked`: methods and names. `failing`: statuses of HTTP that it answers first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.jobs: dict[str, dict[str, Any]] = {}
        self.course: list[dict[str, str]] = []
        self.asked: list[str] = []
        self.failing: list[int] = []


class Handler(BaseHTTPRequestHandler):
    server: Kubernetes

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if self.refused(f"GET {name}"):
            return
        job = self.server.jobs.get(name)
        if job is None:
            self.answer(404, {"reason": "NotFound"})
            return
        course = job["course"]
        self.answer(200, job | {"status": course.pop(0) if len(course) > 1 else course[0]})

    def do_POST(self) -> None:
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = job["metadata"]["name"]
        if self.refused(f"POST {name}"):
            return
        if name in self.server.jobs:
            self.answer(409, {"reason": "AlreadyExists"})
            return
        self.server.jobs[name] = job | {"course": self.server.course[:]}
        self.answer(201, job)

    def refused(self, what: str) -> bool:
        assert self.path.startswith("/apis/ray.io/v1/namespaces/ml/rayjobs")
        self.server.asked.append(what)
        code = self.server.failing.pop(0) if self.server.failing else 0
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            code = 403
        if code:
            self.answer(code, {"message": "not now\n\x1b[31m"})
        return bool(code)

    def answer(self, code: int, tree: dict[str, Any]) -> None:
        body = json.dumps(tree).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service account's folder, whose authority is the server's own certificate."""
    folder = tmp_path_factory.mktemp("account")
    (folder / "token").write_text(f"{TOKEN}\n")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=kubernetes", "-days", "2",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "ca.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def kubernetes(account: Path) -> Iterator[Kubernetes]:
    with Kubernetes() as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(account / "ca.crt", account / "key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def pod(kubernetes: Kubernetes, account: Path, tmp_path: Path) -> Pod:
    """Runs the program as the pod of a Job does: exit code, and what it says."""
    metadata = {"name": "every-night", "namespace": "ml", "annotations": {"r2m/pipeline": "every_night"}}
    template = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": {"entrypoint": "run it"}}
    (tmp_path / TEMPLATE).write_text(yaml.safe_dump(template))

    def run(job: str = f"every-night-{MINUTES}") -> tuple[int, str]:
        environment = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(kubernetes.server_port),
            "NAMESPACE": "ml", "JOB_NAME": job, "JOB_UID": "the-jobs-own",
        }  # fmt: skip
        ended = subprocess.run(
            [sys.executable, "-m", "r2m.pipelines.rayjob", tmp_path, account, "0.01"],
            env=os.environ | environment, capture_output=True, text=True,
        )  # fmt: skip
        return ended.returncode, ended.stderr

    return run


def test_a_rayjob_is_made_and_waited_for(kubernetes: Kubernetes, pod: Pod) -> None:
    kubernetes.course = [{}, {"jobDeploymentStatus": "Initializing"}, RUNNING, RUNNING, DONE]
    code, said = pod()
    assert code == 0, said
    (name,) = kubernetes.jobs
    assert name == f"every-night-{TICK.lower()}-a1"
    job = kubernetes.jobs[name]
    assert job["spec"] == {"entrypoint": "run it --tick 2026-08-07T19:00:00+00:00", "jobId": f"every_night-{TICK}-a1"}
    (owner,) = job["metadata"]["ownerReferences"]
    assert owner == {"apiVersion": "batch/v1", "kind": "Job", "name": f"every-night-{MINUTES}", "uid": "the-jobs-own"}
    assert said.splitlines()[-1] == f"{name}: succeeded"
    assert {what.split()[0] for what in kubernetes.asked} == {"GET", "POST"}


def test_a_pod_that_starts_again_waits_for_the_one_that_is_there(kubernetes: Kubernetes, pod: Pod) -> None:
    name = f"every-night-{TICK.lower()}-a1"
    kubernetes.jobs[name] = {"course": [RUNNING, RUNNING, DONE]}
    code, said = pod()
    assert code == 0
    assert f"{name}: there already" in said
    assert "POST" not in {what.split()[0] for what in kubernetes.asked}
    assert list(kubernetes.jobs) == [name]


@pytest.mark.parametrize("own", [1, 2])
def test_it_fails_as_the_pipeline_does_and_another_pod_hears_the_same(
    kubernetes: Kubernetes, pod: Pod, own: int
) -> None:
    kubernetes.course = [failed(own)]
    assert pod()[0] == own
    assert pod()[0] == own
    assert len(kubernetes.jobs) == 1


def test_what_was_lost_is_made_good_by_the_next_pod(kubernetes: Kubernetes, pod: Pod) -> None:
    kubernetes.course = [RUNNING, GONE]
    code, said = pod()
    assert code == LOST_CODE
    assert said.splitlines()[-1].endswith("lost: AppFailed: Ray head pod not found.")
    kubernetes.course = [RUNNING, DONE]
    assert pod()[0] == 0
    assert [name[-2:] for name in kubernetes.jobs] == ["a1", "a2"]
    assert pod()[0] == 0  # and no third
    assert len(kubernetes.jobs) == 2


def test_two_pods_make_one(kubernetes: Kubernetes, pod: Pod) -> None:
    """The second finds nothing, and is too late to make it."""
    kubernetes.course = [DONE]
    name = f"every-night-{TICK.lower()}-a1"
    kubernetes.jobs[name] = {"course": [RUNNING, DONE]}
    kubernetes.failing = [404]
    code, _ = pod()
    assert code == 0
    assert kubernetes.asked[:2] == [f"GET {name}", f"POST {name}"]
    assert list(kubernetes.jobs) == [name]


def test_a_server_that_is_busy_is_asked_again(kubernetes: Kubernetes, pod: Pod) -> None:
    kubernetes.course = [DONE]
    kubernetes.failing = [503]
    code, said = pod()
    assert code == 0
    assert "again in 1 s" in said
    assert kubernetes.asked[:2] == [f"GET every-night-{TICK.lower()}-a1"] * 2


def test_a_refusal_is_one_line_and_final(kubernetes: Kubernetes, pod: Pod, account: Path) -> None:
    kubernetes.failing = [422]
    code, said = pod()
    assert code == 2
    (line,) = said.splitlines()
    assert line.startswith("error: Kubernetes refuses GET https://127.0.0.1")
    assert "\x1b" not in line


def test_a_rayjob_that_somebody_deletes_is_not_waited_for(kubernetes: Kubernetes, pod: Pod) -> None:
    kubernetes.course = [RUNNING]
    kubernetes.failing = [0, 0, 0, 404]
    code, said = pod()
    assert code == LOST_CODE
    assert "somebody has deleted it" in said


def test_the_time_is_in_the_jobs_name(pod: Pod) -> None:
    assert stamp_of(f"every-night-{MINUTES}") == TICK
    code, said = pod(job="every-night-by-hand")
    assert code == 2
    assert "kubectl create job --from=cronjob/every-night-by" in said
    with pytest.raises(UserError, match="NAME-MINUTES"):
        stamp_of("night")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (DONE, 0), (failed(1), 1), (failed(2), 2), (failed(130), 130), (failed(137), LOST_CODE),
        (failed(-9), LOST_CODE), (GONE, LOST_CODE),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, 130),
        ({"jobDeploymentStatus": "ValidationFailed", "message": "no"}, 2),
        ({"jobDeploymentStatus": "Failed", "reason": "PreRunningDeadlineExceeded"}, LOST_CODE),
    ],
)  # fmt: skip
def test_ends(status: dict[str, str], code: int) -> None:
    end = end_of_rayjob(status)
    assert end is not None
    assert end[0] == code


@pytest.mark.parametrize("state", ["", "Initializing", "Running", "Waiting", "Suspended", "Retrying"])
def test_what_has_not_ended(state: str) -> None:
    """KubeRay writes a job's status before it has seen it through."""
    assert end_of_rayjob({"jobDeploymentStatus": state, "jobStatus": "FAILED"}) is None
