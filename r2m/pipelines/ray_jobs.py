"""A Ray cluster's way to run a pipeline: a job of Ray's, by the pipeline, its time and the attempt.

It is started once however often and from wherever it is asked for, followed, never owned.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from r2m.config import digest
from r2m.errors import UserError, brief, one_line, shown
from r2m.imports import importing
from r2m.pipelines.execution import TICK, tick_of
from r2m.pipelines.schema import Schedule
from r2m.pipelines.ticks import LONGEST, ticks_back

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

ASKED = "r2m.asked"  # a job's metadata: the digest of the file and of all that was asked for
JOB_PATIENCE_S = 120.0  # for which a cluster that does not answer is asked again
CLIENT_ERRORS = (RuntimeError, OSError)  # of Ray's client: the second of what requests raises, too


@dataclass(frozen=True)
class AskedJob:
    """`stamp`: the time that the job is for, as it stands in its id; `arguments`: of `r2m pipeline run`, but for the
    file and the address. `once`: whether one that has succeeded answers for it, as it does for a tick."""

    name: str
    file: Path
    stamp: str
    arguments: Sequence[str]
    once: bool = True

    @property
    def entrypoint(self) -> str:
        return shlex.join(["r2m", "pipeline", "run", self.file.name, *self.arguments, "--address", "auto"])

    @property
    def digest(self) -> str:
        stamp = self.stamp if self.once else None  # by hand: when does not matter, while one of its kind is at it
        return digest([self.name, stamp, self.entrypoint, self.file.read_text(encoding="utf-8")])


def times_of(tick: str | None, schedule: Schedule, now: datetime) -> tuple[str, list[str]]:
    """The time in a job's id, and what `r2m pipeline run` is told of it. Of what is due, the id has the last time."""
    if tick is None:
        return now.strftime("%Y%m%dT%H%M%SZm"), []
    if tick != "due":
        time_of = tick_of(tick)
        return time_of.strftime(TICK), ["--tick", time_of.isoformat()]
    if schedule.cron is None:
        raise UserError("--tick due: the file has no schedule.cron; give a time")
    (last,) = ticks_back(schedule.cron, schedule.zone, now, now - LONGEST, most=1)
    return last.strftime(TICK), ["--tick", "due"]


def job_client(address: str) -> JobSubmissionClient:
    """Of the dashboard at http[s]://HOST:PORT. Raises UserError where none answers, or not to this token."""
    said = f"--address {shown(address)}"
    parts = urlsplit(address)
    try:
        usual = {"http": 80, "https": 443}[parts.scheme]
        socket.create_connection(
            (parts.hostname or "", parts.port or usual), timeout=5
        ).close()  # Ray tries for minutes
    except (LookupError, ValueError):
        raise UserError(f"{said}: expected the address of a Ray dashboard, such as http://HEAD:8265") from None
    except OSError as error:
        raise UserError(f"{said}: no Ray dashboard answers there ({brief(error)})") from None
    for variable in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):  # Ray would take them for what was asked for
        os.environ.pop(variable, None)
    with importing():
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient
    for handler in logging.getLogger("ray").handlers:
        handler.setLevel(logging.WARNING)  # not of each package that is sent
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise UserError(
            f"{said}: {error.message.splitlines()[0]}; set RAY_AUTH_MODE=token, and the cluster's token as "
            "RAY_AUTH_TOKEN or in the file RAY_AUTH_TOKEN_PATH"
        ) from None
    except (*CLIENT_ERRORS, ValueError, LookupError) as error:
        raise UserError(f"{said}: no Ray dashboard answers there ({brief(error)})") from None


def submit(client: JobSubmissionClient, asked: AskedJob) -> tuple[str, bool]:
    """The job for what is asked for, NAME-STAMP-aN, and whether this call has started it.

    One that runs, or has run well, is the one; after one that failed or was stopped comes the next attempt, since Ray
    refuses a second of an id for ever. Of two that submit at once, the second is refused, and follows the first.

    Raises UserError where the cluster takes none.
    """
    while True:
        jobs = {job.submission_id: job for job in client.list_jobs() if job.submission_id}
        for job_id, job in jobs.items():
            if (job.metadata or {}).get(ASKED) == asked.digest and _answers(job, asked):
                return job_id, False
        attempt = 1
        while (job_id := f"{asked.name}-{asked.stamp}-a{attempt}") in jobs:
            attempt += 1
        try:
            _start(client, job_id, asked)
        except CLIENT_ERRORS as error:
            if "already exists" not in str(error):
                raise UserError(f"{job_id}: Ray does not take this job ({brief(error)})") from None
        else:
            return job_id, True


def _answers(job: JobDetails, asked: AskedJob) -> bool:
    return not job.status.is_terminal() or (asked.once and job.status == "SUCCEEDED")


def _start(client: JobSubmissionClient, job_id: str, asked: AskedJob) -> None:
    with tempfile.TemporaryDirectory() as folder:  # the file travels, and nothing else that lies beside it
        shutil.copy(asked.file, folder)
        client.submit_job(
            entrypoint=asked.entrypoint, submission_id=job_id, runtime_env={"working_dir": folder},
            metadata={ASKED: asked.digest},
        )  # fmt: skip


def follow(
    client: JobSubmissionClient, job_id: str, write: Callable[[str], None], patience_s: float = JOB_PATIENCE_S
) -> tuple[int, str]:
    """Write what it has said and says, to its end; its exit code, and its state in a word or a line.

    Raises UserError where the cluster has not answered for `patience_s`: the job may well go on.
    """
    import aiohttp
    from ray.exceptions import RayError

    lost = (*CLIENT_ERRORS, RayError, aiohttp.ClientError)
    written, answered = 0, time.monotonic()

    async def tail() -> None:
        nonlocal written, answered
        at = 0  # where a connection was lost, the log comes from its beginning again
        async for text in client.tail_job_logs(job_id):
            write(text[max(0, written - at) :])
            at += len(text)
            written, answered = max(written, at), time.monotonic()

    while True:
        with suppress(*lost):
            asyncio.run(tail())
        try:
            job = client.get_job_info(job_id)
        except lost as error:
            if time.monotonic() - answered > patience_s:
                raise UserError(f"{job_id}: the cluster no longer answers ({brief(error)})") from None
        else:
            if job.status.is_terminal():
                return end_of_job(job)
            answered = time.monotonic()
        time.sleep(1)


def end_of_job(job: JobDetails) -> tuple[int, str]:
    """The exit code, as a shell has it (128 + n for what signal n has ended), and what has become of it."""
    status, code = job.status.value.lower(), job.driver_exit_code
    if status == "succeeded":
        return 0, status
    if status == "stopped":
        return 130, status
    if not code:  # its node died, or it never began
        return 1, f"{status}: {one_line(job.message or 'Ray does not say why')[:300]}"
    code = code if code > 0 else 128 - code
    return code, f"{status}, exit code {code}"
