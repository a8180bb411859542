"""The paper's experiment section from runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from r2m.cli.common import check_driver, err, out, program, progress, say
from r2m.cli.options import Address, Set, Storage, Workers, storage_path
from r2m.cli.sweep import say_arms
from r2m.config import recipes

app = typer.Typer()


@app.command()
def paper(
    recipe: Annotated[str, Option(help=f"a .yaml file, or one of: {', '.join(recipes())}")] = "forum",
    seeds: Annotated[int, Option(min=1, max=10_000, help="runs of each arm")] = 5,
    set_: Set = None,
    name: Annotated[str | None, Option(help="of its runs and its folder [default: paper-RECIPE]")] = None,
    workers: Workers = None,
    storage: Storage = None,
    address: Address = None,
) -> None:
    """Run what is missing of the paper's arms, and write its tables, figures and claims from the runs."""
    from r2m.paper.claims import judge_all
    from r2m.paper.run import Asked, collect, open_sweeps, run_sweeps
    from r2m.paper.tables import tables
    from r2m.reports.paper_page import summary, write

    check_driver(address)
    name = f"paper-{Path(recipe).stem}" if name is None else name
    asked = Asked(recipe, seeds, storage_path(storage), name, tuple(set_ or ()), workers, address)
    with progress() as bar:
        opened = open_sweeps(asked, bar)
    command = f"{program()} paper {asked.words}"
    if not run_sweeps(opened, address, err):
        say(f"stopped, with checkpoints; go on: {command}")
        raise typer.Exit(130)
    with progress() as bar:
        results = collect(asked, opened, bar)
    judged = judge_all(results)
    write(results, tables(results), judged, asked.folder, command)
    for j in judged:
        out.print(f"{j.verdict}: {j.claim} ({j.source}). {j.why}", highlight=False)
    out.print(summary(judged), style="bold")
    for run, why in results.missing.items():
        out.print(f"not among them: {run}: {why}", soft_wrap=True)
    out.print(f"paper:  {asked.folder / 'paper.html'}", soft_wrap=True, highlight=False)
    out.print(f"tables: {asked.folder / 'tables'}", soft_wrap=True, highlight=False)
    ui = f"{program()} ui {opened[0].name} --storage {shlex.quote(asked.storage)}"
    out.print(f"MLflow: {ui}", soft_wrap=True, highlight=False)
    say_arms(opened[0])
