"""Pipelines: run one, see how they stand."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

from r2m.cli import pipeline_cluster, pipeline_promote
from r2m.cli.common import check_driver, err, out
from r2m.cli.options import Address, Storage, TrackingUri, storage_path
from r2m.cli.pipeline_options import Cron, File, SetParameter, Tick, TimeZone
from r2m.cli.pipeline_schedule import schedule
from r2m.cli.pipeline_status import gc, status

app = typer.Typer()
pipeline = typer.Typer(
    no_args_is_help=True, help="Steps of a file brought up to date, each paid for once; on a clock of your own."
)
app.add_typer(pipeline, name="pipeline")
pipeline.add_typer(pipeline_cluster.app)
pipeline.add_typer(pipeline_promote.app)
for command in (status, gc, schedule):
    pipeline.command()(command)


@pipeline.command()
def run(
    file: File,
    tick: Tick = None,
    set_: SetParameter = None,
    force: Annotated[list[str] | None, Option(metavar="STEP", help="run it though its result is there")] = None,
    storage: Storage = None,
    cron: Cron = None,
    time_zone: TimeZone = None,
    tracking_uri: TrackingUri = None,
    address: Address = None,
    dry_run: Annotated[bool, Option("--dry-run", help="say what is there and what would run; run nothing")] = False,
) -> None:
    """Bring a pipeline up to date. The same file, tick and settings is one execution, taken up where it was."""
    check_driver(address)
    from r2m.pipelines.spec import load_pipeline, on_clock
    from r2m.pipelines.work import Where

    asked = on_clock(load_pipeline(file, set_ or []), cron, time_zone)
    where = Where(storage_path(storage), tracking_uri, address)
    if dry_run:
        from r2m.pipelines.forecast import forecast

        for part in forecast(asked, where, force or ()):
            out.print(part, soft_wrap=isinstance(part, str), highlight=False)
        return
    from r2m.pipelines.turn import take_turn

    ended = take_turn(asked, where, tick, force or (), console=err)
    for run_id, outcome in ended:
        out.print(f"{run_id}: {outcome}", soft_wrap=True, highlight=False)
    outcomes = {outcome for _, outcome in ended}
    if outcomes - {"finished"}:
        raise typer.Exit(130 if "stopped" in outcomes else 1)
