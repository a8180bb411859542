"""Jobs of Ray's: their times, their names, how they end. tests/integration/test_ray_jobs.py has a cluster."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ray.job_submission import JobDetails, JobStatus

from r2m.errors import UserError
from r2m.pipelines.ray_jobs import AskedJob, end_of_job, times_of
from r2m.pipelines.schema import Schedule

NOW = datetime(2026, 12, 1, 2, 0, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("tick", "stamp", "told"),
    [
        (None, "20261201T020059Zm", []),
        ("2026-12-01T03:00+01:00", "20261201T0200Z", ["--tick", "2026-12-01T02:00:00+00:00"]),
        ("due", "20261201T0200Z", ["--tick", "due"]),
    ],
)
def test_times(tick: str | None, stamp: str, told: list[str]) -> None:
    assert times_of(tick, Schedule(cron="0 3 * * *", time_zone="Europe/Zurich"), NOW) == (stamp, told)


def test_a_minute_before_the_last_one_is_due() -> None:
    schedule = Schedule(cron="0 3 * * *", time_zone="Europe/Zurich")
    assert times_of("due", schedule, NOW - timedelta(minutes=1))[0] == "20261130T0200Z"


def test_due_needs_a_schedule() -> None:
    with pytest.raises(UserError, match="--tick due: the file has no schedule"):
        times_of("due", Schedule(), NOW)


def test_what_is_asked_for_is_told_by_the_file_and_all_arguments(tmp_path: Path) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text("steps: {}")
    asked = AskedJob("nightly", file, "20261201T0200Z", ["--set", "seeds=[0, 1]"])
    assert asked.entrypoint == "r2m pipeline run nightly.yaml --set 'seeds=[0, 1]' --address auto"
    others = [
        AskedJob("nightly", file, "20261202T0200Z", asked.arguments), AskedJob("nightly", file, asked.stamp, []),
        AskedJob("nightly", file, asked.stamp, asked.arguments, once=False),
    ]  # fmt: skip
    digests = {asked.digest, *(other.digest for other in others)}
    file.write_text("steps: {} # another")
    assert len(digests | {asked.digest}) == 5
    assert (
        AskedJob("nightly", file, "20261202T0200Z", [], False).digest
        == AskedJob("nightly", file, "", [], False).digest
    )


@pytest.mark.parametrize(
    ("status", "exit_code", "code", "state"),
    [
        (JobStatus.SUCCEEDED, 0, 0, "succeeded"), (JobStatus.STOPPED, None, 130, "stopped"),
        (JobStatus.FAILED, 1, 1, "failed, exit code 1"), (JobStatus.FAILED, -9, 137, "failed, exit code 137"),
        (JobStatus.FAILED, None, 1, "failed: its node died"),
    ],
)  # fmt: skip
def test_ends(status: JobStatus, exit_code: int | None, code: int, state: str) -> None:
    job = JobDetails(
        type="SUBMISSION", status=status, entrypoint="r2m", driver_exit_code=exit_code, message="its node\ndied"
    )
    assert end_of_job(job) == (code, state)
