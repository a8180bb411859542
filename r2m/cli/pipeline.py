"""Pipelines: run one, see how they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from r2m.cli.common import check_driver, err, out
from r2m.cli.options import Address, Storage, storage_path
from r2m.cli.pipeline_status import gc, status

if TYPE_CHECKING:
    pass

app = typer.Typer()
pipeline = typer.Typer(
    no_args_is_help=True, help="Steps of a file brought up to date, each paid for once; on a clock of your own."
)
app.add_typer(pipeline, name="pipeline")
pipeline.command()(status)
pipeline.command()(gc)

File = Annotated[str, Argument(metavar="FILE", help="a pipeline file, .yaml")]
Tick = Annotated[str | None, Option(metavar="TIME|due", help="whose execution it is; due: by the file's schedule")]
SetParameter = Annotated[list[str] | None, Option("--set", metavar="NAME=VALUE", help="a parameter of the pipeline")]


@pipeline.command()
def run(
    file: File,
    tick: Tick = None,
    set_: SetParameter = None,
    force: Annotated[list[str] | None, Option(metavar="STEP", help="run it though its result is there")] = None,
    storage: Storage = None,
    tracking_uri: Annotated[str | None, Option(help="MLflow's [default: SQLite in the storage]")] = None,
    address: Address = None,
    dry_run: Annotated[bool, Option("--dry-run", help="say what is there and what would run; run nothing")] = False,
) -> None:
    """Bring a pipeline up to date. The same file, tick and settings is one execution, taken up where it was."""
    check_driver(address)
    from r2m.pipelines.execution import open_execution, tick_of
    from r2m.pipelines.spec import check_room_for, load_pipeline
    from r2m.pipelines.work import Where

    asked = load_pipeline(file, set_ or [])
    where = Where(storage_path(storage), tracking_uri, address)
    if dry_run:
        from r2m.pipelines.forecast import forecast

        for part in forecast(asked, where, force or ()):
            out.print(part, soft_wrap=isinstance(part, str), highlight=False)
        return
    from r2m.pipelines.driver import run_execution

    check_room_for(asked, where)
    execution = open_execution(asked, None if tick is None else tick_of(tick), where)
    outcome = run_execution(execution, force=force or (), console=err)
    out.print(f"{execution.run_id}: {outcome}", soft_wrap=True, highlight=False)
    if outcome != "finished":
        raise typer.Exit(1 if outcome == "failed" else 130)
