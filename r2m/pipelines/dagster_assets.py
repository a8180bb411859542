"""A pipeline in Dagster, for those who want its pages (pip install 'r2m[dagster]'): an asset a step, one job, one
schedule. A file of yours for `dagster dev -f`:

    from r2m.pipelines.dagster_assets import definitions
    defs = definitions("pipelines/forum_nightly.yaml", "/shared/r2m-runs")

What a step is, whether it is there, and what runs beside it is the pipeline's own affair, as from the command line.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC
from pathlib import Path

import dagster

from r2m.config.paths import absolute
from r2m.pipelines.execution import TICK, pipelines_folder
from r2m.pipelines.schema import Pipeline
from r2m.pipelines.spec import graph, load_pipeline
from r2m.pipelines.turn import take_turn
from r2m.pipelines.work import Where
from r2m.runs.folder import JOURNAL
from r2m.runs.journal import read
from r2m.runs.records import last_of_steps

TICK_TAG = "r2m/tick"  # of a run of Dagster's: the execution's time


def definitions(
    file: str | Path, storage: str | Path, settings: Sequence[str] = (), tracking_uri: str | None = None,
    address: str | None = None,
) -> dagster.Definitions:  # fmt: skip
    """The file's, with `settings`, NAME=VALUE, for parameters of its. Raises UserError for a mistake in it."""
    pipeline = load_pipeline(file, settings)
    where = Where(absolute(str(storage)), tracking_uri, address)
    name = re.sub(r"\W", "_", pipeline.name)
    steps = _assets(pipeline, where, name)
    job = dagster.define_asset_job(name, selection=dagster.AssetSelection.assets(steps))
    return dagster.Definitions(assets=[steps], jobs=[job], schedules=_schedules(pipeline, job, name))


def _assets(pipeline: Pipeline, where: Where, name: str) -> dagster.AssetsDefinition:
    """All steps as one operation, of which any of them can be asked for: the pipeline's driver is one process, and
    runs side by side what there is room for."""
    needs = graph(pipeline)
    keys = {step: dagster.AssetKey([name, step]) for step in needs}
    specs = [
        dagster.AssetSpec(keys[step], deps=[keys[other] for other in of], kinds={pipeline.steps[step].use})
        for step, of in needs.items()
    ]

    @dagster.multi_asset(name=f"{name}_steps", specs=specs, can_subset=True)
    def steps(context: dagster.AssetExecutionContext) -> Iterator[dagster.MaterializeResult]:
        asked = [step for step, key in keys.items() if key in context.selected_asset_keys]
        # An execution that has finished stays so: some of the steps are one of their own, by hand.
        tick = context.run.tags.get(TICK_TAG) if len(asked) == len(keys) else None
        ended = take_turn(pipeline, where, tick, only=asked)
        if not ended:
            raise dagster.Failure(f"{pipeline.name}: skipped: somebody else is running it", allow_retries=False)
        ((run_id, outcome),) = ended
        events = read(pipelines_folder(where.storage) / run_id / JOURNAL).events
        last = last_of_steps(events)
        for step in asked:
            if last.get(step, {}).get("state") in ("cached", "done"):
                facts = {key: last[step][key] for key in ("state", "entry", "made_by")}
                yield dagster.MaterializeResult(keys[step], metadata={"execution": run_id} | facts)
        if outcome != "finished":
            why = next((event.get("reason", "") for event in reversed(events) if event["name"] == outcome), "")
            raise dagster.Failure(f"{run_id}: {outcome}: {why}", allow_retries=False)

    return steps


def _schedules(pipeline: Pipeline, job: object, name: str) -> list[dagster.ScheduleDefinition]:
    """None where the file has none. Stopped until it is started in Dagster."""
    schedule = pipeline.schedule
    if schedule.cron is None:
        return []

    def at(context: dagster.ScheduleEvaluationContext) -> dagster.RunRequest:
        tick = context.scheduled_execution_time.astimezone(UTC)
        return dagster.RunRequest(tick.strftime(TICK), tags={TICK_TAG: tick.isoformat()})

    return [
        dagster.ScheduleDefinition(
            f"{name}_schedule", job=job, cron_schedule=schedule.cron, execution_timezone=schedule.time_zone,
            execution_fn=at,
        )
    ]  # fmt: skip
