"""Saved views, for experiments that were made without them."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from r2m.cli.common import out
from r2m.cli.options import Storage, storage_path

app = typer.Typer()
dashboards = typer.Typer(no_args_is_help=True, help="Views in MLflow: what `r2m ui` opens on.")
app.add_typer(dashboards, name="dashboards")


@dashboards.callback()
def group() -> None:
    """Views in MLflow: what `r2m ui` opens on."""


@dashboards.command()
def install(
    names: Annotated[
        list[str] | None, Argument(metavar="EXPERIMENT", help="MLflow's name, or a sweep's; else all of R2M's")
    ] = None,
    storage: Storage = None,
    tracking_uri: Annotated[str | None, Option(help="MLflow's; else SQLite in the storage")] = None,
) -> None:
    """Give experiments the views of dashboards/mlflow: Arms, Hacking watch, Sweep, Cost. Done again, it changes
    nothing but what was changed since."""
    from r2m.tracking.client import client_of
    from r2m.tracking.dashboards import install_all
    from r2m.tracking.mlflow_sink import default_tracking_uri

    with client_of(tracking_uri or default_tracking_uri(Path(storage_path(storage)))) as client:
        for name, new in install_all(client, names or ()):
            out.print(f"{name}: {len(new)} new" if new else f"{name}: as it was", highlight=False, soft_wrap=True)
