"""A pipeline's file in Dagster, with steps that really run. Needs the extra `dagster`, which nothing else does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

dagster = pytest.importorskip("dagster", reason="pip install 'r2m[dagster]'")

from r2m.errors import UserError  # noqa: E402
from r2m.pipelines.dagster_assets import TICK_TAG, definitions  # noqa: E402
from r2m.pipelines.execution import executions  # noqa: E402

PIPELINE = """
name: small.one
parameters: {posts: 64}
schedule: {cron: "30 2 * * *", time_zone: Europe/Zurich}
retries: 0
steps:
  sft: {use: sft, recipe: forum, set: &tiny {task.posts: "${posts}", task.sft_steps: 2, task.preference_pairs: 60}}
  reward: {use: reward-model, recipe: forum, set: *tiny, policy: "${sft.model}"}
"""
TICK = "2026-12-01T01:30:00+00:00"
Materialised = Callable[..., "dagster.ExecuteInProcessResult"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(PIPELINE)
    return path


@pytest.fixture
def materialised(file: Path, tmp_path: Path) -> Materialised:
    """Runs the job of the file as Dagster does, with all steps or some."""

    def run(*steps: str, settings: tuple[str, ...] = (), tick: str | None = TICK) -> dagster.ExecuteInProcessResult:
        defs = definitions(file, tmp_path / "storage", settings)
        selection = [dagster.AssetKey(["small_one", step]) for step in steps] or None
        return defs.resolve_job_def("small_one").execute_in_process(
            asset_selection=selection, tags={TICK_TAG: tick} if tick else {}, raise_on_error=False
        )

    return run


def states(result: dagster.ExecuteInProcessResult) -> dict[str, str]:
    return {
        event.asset_key.path[-1]: event.materialization.metadata["state"].value
        for event in result.get_asset_materialization_events()
    }


def test_an_asset_a_step_and_a_schedule_that_is_not_started(file: Path, tmp_path: Path) -> None:
    defs = definitions(file, tmp_path / "storage")
    graph = defs.resolve_asset_graph()
    sft, reward = dagster.AssetKey(["small_one", "sft"]), dagster.AssetKey(["small_one", "reward"])
    assert set(graph.get_all_asset_keys()) == {sft, reward}
    assert set(graph.get(reward).parent_keys) == {sft}
    schedule = defs.resolve_schedule_def("small_one_schedule")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 2 * * *", "Europe/Zurich")
    assert schedule.default_status == dagster.DefaultScheduleStatus.STOPPED
    at = datetime(2026, 12, 1, 1, 30, tzinfo=UTC)
    context = dagster.build_schedule_context(scheduled_execution_time=at)
    (request,) = schedule.evaluate_tick(context).run_requests
    assert request.run_key == "20261201T0130Z"
    assert request.tags[TICK_TAG] == TICK


def test_a_run_brings_the_steps_up_to_date_and_a_second_finds_them(
    materialised: Materialised, tmp_path: Path
) -> None:
    first = materialised("sft")
    assert first.success
    assert states(first) == {"sft": "done"}
    second = materialised()
    assert second.success
    assert states(second) == {"sft": "cached", "reward": "done"}
    assert states(materialised(tick=None)) == {"sft": "cached", "reward": "cached"}
    assert sorted(kept.manual for kept in executions(str(tmp_path / "storage"), "small.one")) == [False, True, True]
    again = materialised()  # the tick's execution has finished
    assert again.success
    assert states(again) == states(second)


def test_a_step_that_fails_fails_the_run_and_what_was_made_stays(materialised: Materialised, tmp_path: Path) -> None:
    assert materialised("sft").success
    (entry,) = (tmp_path / "storage" / "memo").glob("sft-*")
    for weights in entry.rglob("*.safetensors"):
        weights.write_bytes(b"")
    result = materialised()
    assert not result.success
    assert states(result) == {"sft": "cached"}
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert ": failed: reward: " in failure.step_failure_data.error.message


def test_a_mistake_is_told_when_dagster_loads_the_file(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a parameter"):
        definitions(file, tmp_path, ["post=1"])


def test_dagsters_own_command_takes_it(file: Path, tmp_path: Path) -> None:
    module = tmp_path / "ours.py"
    module.write_text(
        "from r2m.pipelines.dagster_assets import definitions\n"
        f"defs = definitions({str(file)!r}, {str(tmp_path / 'storage')!r})\n"
    )
    validate = [sys.executable, "-m", "dagster", "definitions", "validate", "-f", str(module)]
    ended = subprocess.run(validate, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
