"""Which policy is a pipeline's champion, and the way back to the one before it."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Argument, Option

from r2m.cli.common import out
from r2m.cli.options import Storage, TrackingUri, storage_path

app = typer.Typer()


@app.command()
def promote(
    name: Annotated[str, Argument(metavar="NAME", help="a pipeline")],
    rollback: Annotated[bool, Option("--rollback", help="the champion before this one is it again")] = False,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Say which policy is a pipeline's champion; its promote step decides. --rollback undoes the last promotion."""
    from r2m.errors import UserError
    from r2m.runs.folder import check_name
    from r2m.tracking.client import client_of
    from r2m.tracking.mlflow_sink import default_tracking_uri
    from r2m.tracking.registry import ALIAS, champion, no_champion, registry_lock
    from r2m.tracking.registry import rollback as roll_back

    check_name("NAME", name)
    where = storage_path(storage)
    with client_of(tracking_uri or default_tracking_uri(where)) as client:
        if rollback:
            with registry_lock(where, name):
                was, now = roll_back(client, name)
            out.print(f"{ALIAS} of {name} was {was.name}", soft_wrap=True, highlight=False)
        elif (now_or_none := champion(client, name)) is None:
            raise UserError(no_champion(client, name))
        else:
            now = now_or_none
        before = "none before it" if now.before is None else f"before it: version {now.before}"
        out.print(f"{ALIAS} of {name} is {now.name}; {before}", soft_wrap=True, highlight=False)
