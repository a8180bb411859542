"""Sweeps: run one, go on with one, see where one stands."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from r2m.cli.common import check_driver, err, out, program, progress, say, say_left_out
from r2m.cli.options import Address, DryRun, Storage, TrackingUri, Workers, storage_path
from r2m.errors import UserError, of_database, reason_of

if TYPE_CHECKING:
    from r2m.sweeps.sweep import Opened

app = typer.Typer()


@app.command()
def sweep(
    words: Annotated[list[str] | None, Argument(metavar="FILE | status NAME", help="a .yaml or .py file")] = None,
    name: Annotated[str | None, Option(help="the sweep's name")] = None,
    resume: Annotated[str | None, Option(metavar="NAME", help="go on with a sweep")] = None,
    workers: Workers = None,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    address: Address = None,
    dry_run: DryRun = False,
) -> None:
    """Search settings, compare the best with the baselines on fresh seeds, and say whether it is better."""
    folder = storage_path(storage)
    match words or []:
        case ["status", sweep_name] if resume is None:
            _status(folder, sweep_name)
            return
        case [] if resume is not None:
            if name or workers or tracking_uri or dry_run:
                raise UserError("--resume goes on with a sweep as it was configured: give it with --storage alone")
        case [_] if resume is None:
            pass
        case _:
            raise UserError("give a sweep file, or status NAME, or --resume NAME")
    check_driver(address)
    from r2m.runs.folder import check_name
    from r2m.sweeps.sweep import JOURNAL, new_sweep, open_sweep

    if resume is not None:
        _run(open_sweep(folder, resume), address)
        return
    (file,) = words or []
    if name is not None:
        check_name("--name", name)
    _check_room(file, folder, workers, tracking_uri, address, dry_run)
    if not dry_run:
        with progress() as bar:
            opened = new_sweep(file, name, folder, workers, tracking_uri, bar)
        say_left_out(opened.folder / JOURNAL)
        _run(opened, address)


def _check_room(
    file: str, storage: str, workers: int | None, tracking_uri: str | None, address: str | None, show: bool
) -> None:
    """Refuse a sweep that can't fit before anything is prepared."""
    from r2m.sweeps.plan import sweep_plan_table
    from r2m.sweeps.room import plan_of
    from r2m.sweeps.schema import grace
    from r2m.sweeps.spec import check_suggest, load_sweep
    from r2m.sweeps.sweep import extra_settings

    sweep = load_sweep(file, workers)
    check_suggest(sweep)
    plan = plan_of(sweep, extra_settings(storage, tracking_uri), address)
    plan.check_disk(storage)
    if show:
        out.print(sweep_plan_table(plan))
        if sweep.early_stopping.kind != "none":
            first, last = grace(sweep), sweep.budget.evaluations
            out.print(f"trials may be stopped from evaluation {first} of {last} on: by then Ω has acted in all")


def _run(opened: Opened, address: str | None) -> None:
    """Run it, then show the answer and where to look; exit code 130 for a sweep that was stopped."""
    from r2m.reports.sweep_tables import sweep_terminal
    from r2m.sweeps.driver import run_sweep

    answer, finished = run_sweep(opened, address, err)
    out.print(sweep_terminal(answer))
    _look(opened)
    say_arms(opened)
    if not finished:
        say(f"stopped, with checkpoints; {_go_on(opened, address)}")
        raise typer.Exit(130)


def _go_on(opened: Opened, address: str | None) -> str:
    command = f"{program()} sweep --resume {opened.name} --storage {shlex.quote(opened.storage)}"
    return f"go on: {command}" + (f" --address {address}" if address else "")


def _status(storage: str, name: str) -> None:
    from r2m.reports.sweep_tables import sweep_terminal
    from r2m.sweeps.sweep import answer_of, open_sweep, runs_of, status_of, write_answer

    opened = open_sweep(storage, name)
    status = status_of(opened)
    try:
        study = opened.study_to_read(say)
        if status == "running":  # its driver draws it
            answer = answer_of(opened, study, runs_of(opened))
        else:
            answer, _ = write_answer(opened, study, lambda error: say(f"not written: {reason_of(error)}"))
    except Exception as error:
        if not of_database(error):
            raise
        raise UserError(f"SWEEP = {name!r}: its study cannot be read: {reason_of(error)}") from error
    out.print(f"{name}: {status}")
    out.print(sweep_terminal(answer))
    _look(opened)
    if status not in ("running", "finished"):
        out.print(_go_on(opened, None), soft_wrap=True)


def say_arms(opened: Opened) -> None:
    """Where the arms are side by side. It loads MLflow, which a run has done before."""
    from r2m.tracking.ui import arms_of

    if arms := arms_of(opened.tracking_uri, opened.experiment):
        out.print(f"arms:      {arms}", highlight=False, soft_wrap=True)


def _look(opened: Opened) -> None:
    from r2m.sweeps.sweep import PICTURES

    folder = opened.folder
    for line in (
        f"report:    {folder / 'report.html'}",
        f"picture:   {folder / 'answer.png'}",
        f"MLflow:    {program()} ui {opened.name} --storage {shlex.quote(opened.storage)}",
        f"Optuna:    {Path(program()).with_name('optuna-dashboard')} {shlex.quote(opened.database)} "
        f"--artifact-dir {shlex.quote(str(folder / PICTURES))}",
    ):
        out.print(line, highlight=False, soft_wrap=True)
