"""What a CronJob's pod runs: `python -m r2m.pipelines.rayjob FOLDER [ACCOUNT SECONDS]`. It makes a RayJob for the
CronJob's time, waits for it, and ends as it has ended.

Each attempt is a RayJob of its own. A pod that is started again finds the one that is there and waits for it. Nothing
is deleted: a RayJob is owned by the pod's Job, and goes with it. Exit codes: 0, 1, 2 and 130 are the pipeline's own;
LOST_CODE where the cluster or its head was lost, which another pod may make good.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from r2m.errors import UserError, brief, one_line
from r2m.pipelines.execution import TICK

TEMPLATE = "rayjob-template"  # a file in FOLDER
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API_PATIENCE_S, RAYJOB_POLL_S = 600.0, 10.0
LOST_CODE, OWN_CODES = 75, (0, 1, 2, 130)
_EXIT_CODE = re.compile(r"failed with exit code (-?\d+)")  # as Ray's job supervisor says it

Manifest = dict[str, Any]


class RayJobs:
    """Those of the pod's namespace, by Kubernetes' API, with the token of the pod's service account."""

    def __init__(self, environment: Mapping[str, str], account: Path = ACCOUNT) -> None:
        host, port = environment["KUBERNETES_SERVICE_HOST"], environment["KUBERNETES_SERVICE_PORT"]
        host = f"[{host}]" if ":" in host else host
        self.url = f"https://{host}:{port}/apis/ray.io/v1/namespaces/{environment['NAMESPACE']}/rayjobs"
        self.token = account / "token"
        self.context = ssl.create_default_context(cafile=str(account / "ca.crt"))

    def get(self, name: str) -> Manifest | None:
        """None where there is none."""
        return self._answer("GET", f"{self.url}/{name}", None, absent=404)

    def create(self, job: Manifest) -> None:
        """Also where it is there by now: of two that make it, one does."""
        self._answer("POST", self.url, job, absent=409)

    def _answer(self, method: str, url: str, body: Manifest | None, absent: int) -> Manifest | None:
        """None for the status `absent`. Where the server does not answer, or not yet, it is asked again, for
        API_PATIENCE_S; then its OSError is raised. Raises UserError where it refuses."""
        began, wait = time.monotonic(), 1.0
        while True:
            request = urllib.request.Request(url, json.dumps(body).encode() if body else None, method=method)
            request.add_header("Authorization", f"Bearer {self.token.read_text().strip()}")  # it is renewed
            request.add_header("Content-Type", "application/json")
            try:
                with urllib.request.urlopen(request, timeout=30, context=self.context) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code == absent:
                    return None
                said = one_line(error.read(2000).decode(errors="replace"))
                if error.code not in (401, 408, 429) and error.code < 500:
                    raise UserError(f"Kubernetes refuses {method} {url}: {error.code} {said}") from None
                trouble: OSError = error
            except OSError as error:
                trouble = error
            if time.monotonic() - began > API_PATIENCE_S:
                raise trouble
            _say(f"no answer ({brief(trouble)}); again in {wait:g} s")
            time.sleep(wait)
            wait = min(2 * wait, 60.0)


def bring(
    jobs: RayJobs, template: Manifest, stamp: str, owner: Manifest | None, poll_s: float = RAYJOB_POLL_S
) -> int:
    """The exit code of the pipeline at that time: of the RayJob that is there, or of one that is made.

    One that was lost, before this process began, is followed by the next attempt.
    """
    resource = template["metadata"]["name"]
    for attempt in count(1):
        name = f"{resource}-{stamp.lower()}-a{attempt}"
        made = jobs.get(name) is None
        if made:
            jobs.create(attempt_of(template, name, stamp, attempt, owner))
        _say(f"{name}: {'made' if made else 'there already'}; waiting for it")
        code, state = wait_for_rayjob(jobs, name, poll_s)
        _say(f"{name}: {state}")
        if made or code != LOST_CODE:
            return code
    raise AssertionError


def attempt_of(template: Manifest, name: str, stamp: str, attempt: int, owner: Manifest | None) -> Manifest:
    metadata, spec = template["metadata"], template["spec"]
    pipeline = metadata["annotations"]["r2m/pipeline"]
    time_of = datetime.strptime(stamp, TICK).replace(tzinfo=UTC)
    return template | {
        "metadata": metadata | {"name": name} | ({"ownerReferences": [owner]} if owner else {}),
        "spec": spec | {
            "entrypoint": f"{spec['entrypoint']} --tick {time_of.isoformat()}",
            "jobId": f"{pipeline}-{stamp}-a{attempt}",  # a name of its own: Ray refuses a second of one
        },
    }  # fmt: skip


def wait_for_rayjob(jobs: RayJobs, name: str, poll_s: float) -> tuple[int, str]:
    """Its exit code, and what has become of it."""
    said = ""
    while True:
        job = jobs.get(name)
        if job is None:
            return LOST_CODE, "somebody has deleted it"
        status = job.get("status") or {}
        if end := end_of_rayjob(status):
            return end
        state = status.get("jobDeploymentStatus") or "new"
        if state != said:
            _say(f"{name}: {state}")
            said = state
        time.sleep(poll_s)


def end_of_rayjob(status: Manifest) -> tuple[int, str] | None:
    """None while it has not ended. `status`: as KubeRay writes it."""
    deployment, job = status.get("jobDeploymentStatus"), status.get("jobStatus")
    message = status.get("message") or ""
    if deployment == "ValidationFailed":
        return 2, f"KubeRay refuses it: {one_line(message)[:500]}"
    if deployment not in ("Complete", "Failed"):
        return None
    if job in ("SUCCEEDED", "STOPPED"):
        return (0 if job == "SUCCEEDED" else 130), job.lower()
    found = _EXIT_CODE.search(message)
    if job == "FAILED" and found:
        code = int(found[1])
        return (code if code in OWN_CODES else LOST_CODE), f"failed, exit code {code}"
    return LOST_CODE, f"lost: {status.get('reason') or 'failed'}: {one_line(message)[:500]}"


def stamp_of(job_name: str) -> str:
    """Of a CronJob's Job, whose name Kubernetes ends with its time in minutes since 1970. Raises UserError."""
    cron_job, _, minutes = job_name.rpartition("-")
    if not minutes.isdecimal() or len(minutes) != 8:
        raise UserError(
            f"Job = {job_name!r}: expected NAME-MINUTES, the time in minutes since 1970; by hand: kubectl create job "
            f"--from=cronjob/{cron_job or 'NAME'} {cron_job or 'NAME'}-$(($(date +%s) / 60))"
        )
    return datetime.fromtimestamp(60 * int(minutes), UTC).strftime(TICK)


def run_pod(folder: Path, account: Path = ACCOUNT, poll_s: float = RAYJOB_POLL_S) -> int:
    template = yaml.safe_load((folder / TEMPLATE).read_text(encoding="utf-8"))
    job, uid = os.environ["JOB_NAME"], os.environ["JOB_UID"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": uid}
    try:
        return bring(RayJobs(os.environ, account), template, stamp_of(job), owner, poll_s)
    except UserError as error:
        _say(f"error: {error}")
        return 2
    except OSError as error:
        _say(f"Kubernetes does not answer: {brief(error)}")
        return LOST_CODE


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    at, *given = sys.argv[1:]
    sys.exit(run_pod(Path(at), Path(given[0]) if given else ACCOUNT, float(given[1]) if given[1:] else RAYJOB_POLL_S))
