"""Single runs: train them, ship them to MLflow, look at them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from typer import Argument, Option

from r2m.cli.common import out, program, progress, say, say_left_out
from r2m.cli.options import Address, DryRun, Set, Storage, Workers, storage_path
from r2m.config import load, override, recipes
from r2m.errors import UserError

if TYPE_CHECKING:
    from r2m.training.start import StartedRun

app = typer.Typer()


@app.command()
def train(
    recipe: Annotated[str, Argument(help=f"a .yaml file, or one of: {', '.join(recipes())}")] = "",
    set_: Set = None,
    workers: Workers = None,
    name: Annotated[str | None, Option(help="the run's name")] = None,
    resume: Annotated[str | None, Option(metavar="RUN", help="go on with a run")] = None,
    storage: Storage = None,
    address: Address = None,
    dry_run: DryRun = False,
    assume: Annotated[
        str | None, Option(metavar="NxGB", help="with --dry-run: plan for GPUs that needn't be here, such as 8x80")
    ] = None,
) -> None:
    """Run Algorithm 1 (reward.feedback=on), or plain RLOO (off), in Ray Train workers."""
    from r2m.runs.folder import check_name
    from r2m.training.cluster import check_address, connect
    from r2m.training.machine import Machine
    from r2m.training.preflight import plan_for
    from r2m.training.start import new_run, open_run

    check_address(address)
    if assume is not None and not dry_run:
        raise UserError(f"--assume {assume}: it plans, and runs nothing: give it with --dry-run")
    if resume is not None:
        if recipe or set_ or workers or name or dry_run:
            raise UserError("--resume goes on with a run as it was configured: give it with --storage alone")
        runs = [open_run(storage_path(storage), resume)]
    else:
        if not recipe:
            raise UserError(f"RECIPE: missing; a .yaml file, or one of: {', '.join(recipes())}")
        config = load(recipe, _overrides(set_, workers, storage))
        if name is not None:
            check_name("--name", name)
        plan = plan_for(
            config, address, launch=not dry_run, assumed=None if assume is None else Machine.assumed(assume)
        )
        if dry_run:
            from r2m.training.plan_table import plan_table

            out.print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), soft_wrap=True)
            out.print(plan_table(plan))
            if plan.fits:
                out.print(plan.fits, soft_wrap=True)
            return
        plan.check_disk(config.run.storage)
        if address is not None:  # before a run is begun that could not go on
            connect(address, 0)
        with progress() as bar:
            runs = [new_run(config, name, bar)]
        say_left_out(runs[0].journal)
    _execute(runs, address)


@app.command()
def sync(
    name: Annotated[str, Argument(help="a run's or a sweep's name")],
    storage: Storage = None,
    patience: Annotated[
        float, Option(min=0, metavar="SECONDS", help="give up when nothing has got through for so long")
    ] = 300.0,
) -> None:
    """Ship to MLflow what a run's journal, or those of a sweep, have and MLflow has not; retry what fails."""
    from r2m.tracking.sync import NotShippedError
    from r2m.tracking.sync import sync as ship

    folder = storage_path(storage)
    try:
        for run, count in ship(folder, name, patience, say):
            out.print(f"{run}: {count} metric points shipped", soft_wrap=True)
    except NotShippedError as error:
        say(f"error: {error}; go on: {program()} sync {name} --storage {shlex.quote(folder)}")
        raise typer.Exit(1) from None


@app.command()
def ui(
    experiment: Annotated[
        str | None, Argument(metavar="EXPERIMENT", help="whose arms to open: MLflow's name, or a sweep's")
    ] = None,
    storage: Storage = None,
    port: Annotated[int, Option(min=1, max=65535)] = 5000,  # r2m.tracking.ui's PORT, without loading it
) -> None:
    """MLflow's pages on this machine's loopback address, and where they open on the arms; Ctrl-C ends them."""
    from r2m.tracking.ui import serve

    raise typer.Exit(serve(storage_path(storage), port, experiment))


def _overrides(set_: list[str] | None, workers: int | None, storage: str | None) -> list[str]:
    options = {"run.workers": workers, "run.storage": None if storage is None else storage_path(storage)}
    return [*(set_ or []), *(override(key, value) for key, value in options.items() if value is not None)]


def _execute(runs: list[StartedRun], address: str | None) -> None:
    """Run them, then say how they ended and where to look; exit code 1 for a failed run, 130 for a stopped one."""
    from r2m.reports.table import rich_table, runs_table
    from r2m.training.driver import execute

    views, storage = execute(runs, address), runs[0].config.run.storage
    table = runs_table([view for view in views if view.rounds])
    out.print(rich_table(table, whole=range(len(table.head))))
    out.print(f"look: {program()} ui --storage {shlex.quote(storage)}", soft_wrap=True)
    for view in views:
        if view.status == "failed":
            say(f"error: {view.run_id}: {view.events[-1]['reason']}")
        if view.status == "stopped":
            go_on = f"{program()} train --resume {view.run_id} --storage {shlex.quote(storage)}"
            say(f"stopped, with a checkpoint; go on: {go_on}")
        if view.status == "pruned":  # as it was asked to: no failure
            say(f"ended for good, with a checkpoint; {view.events[-1].get('reason', '')}")
    statuses = {view.status for view in views} - {"pruned"}
    if statuses - {"finished"}:
        raise typer.Exit(1 if "failed" in statuses else 130)
