"""The paper's experiment section from runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r2m.cli.common import Address, Storage, WorkersOption, err, out, program, progress, storage_folder
from r2m.config import recipes
from r2m.errors import UserError

if TYPE_CHECKING:
    from r2m.paper.run import Asked

app = typer.Typer()


@app.command()
def paper(
    recipe: Annotated[str, typer.Option(help=f"a .yaml file, or one of: {', '.join(recipes())}")] = "forum",
    seeds: Annotated[int, typer.Option(min=1, max=10_000, help="runs of each arm")] = 5,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a setting of all arms")
    ] = None,
    name: Annotated[str | None, typer.Option(help="of its runs and its folder [default: paper-RECIPE]")] = None,
    workers: WorkersOption = None,
    storage: Storage = None,
    address: Address = None,
) -> None:
    """Run what is missing of the paper's arms, and write its tables, figures and claims from the runs."""
    from r2m.paper.claims import judge_all
    from r2m.paper.run import Asked, collect, open_sweeps, run_sweeps
    from r2m.paper.tables import tables
    from r2m.reports.paper_page import summary, write
    from r2m.training.cluster import check_address

    check_address(address)
    if address is not None and address.startswith("ray://"):
        raise UserError(
            f"--address {address!r}: this process reads and writes the storage itself; start it on a node of the "
            "cluster, with --address auto or HOST:6379"
        )
    asked = Asked(
        recipe,
        seeds,
        storage_folder(storage),
        f"paper-{Path(recipe).stem}" if name is None else name,
        tuple(set_ or ()),
        workers,
        address,
    )
    with progress() as bar:
        opened = open_sweeps(asked, bar)
    command = _command(asked)
    if not run_sweeps(opened, address, err):
        err.print(f"stopped, with checkpoints; go on: {command}", markup=False, soft_wrap=True)
        raise typer.Exit(130)
    with progress() as bar:
        results = collect(asked, opened, bar)
    judged = judge_all(results)
    write(results, tables(results), judged, asked.folder, command)
    for j in judged:
        out.print(f"{j.verdict}: {j.claim} ({j.source}). {j.why}", markup=False, highlight=False)
    out.print(summary(judged), style="bold")
    for run, why in results.missing.items():
        out.print(f"not among them: {run}: {why}", markup=False, soft_wrap=True)
    out.print(f"paper:  {asked.folder / 'paper.html'}", soft_wrap=True, markup=False, highlight=False)
    out.print(f"tables: {asked.folder / 'tables'}", soft_wrap=True, markup=False, highlight=False)


def _command(asked: Asked) -> str:
    """What to type to go on, or to write it again."""
    options: dict[str, object] = {
        "--recipe": asked.recipe, "--seeds": asked.seeds, "--storage": asked.storage, "--name": asked.name,
        "--workers": asked.workers, "--address": asked.address,
    }  # fmt: skip
    words = [word for key, value in options.items() if value is not None for word in (key, str(value))]
    words += [word for setting in asked.settings for word in ("--set", setting)]
    return f"{program()} paper {shlex.join(words)}"
