"""A pipeline on this machine's own clock."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from r2m.cli.common import out, say
from r2m.cli.options import Address, Storage, storage_path
from r2m.errors import UserError

if TYPE_CHECKING:
    from r2m.pipelines.timer import Timer

app = typer.Typer()


@app.command()
def schedule(
    file: Annotated[str, Argument(metavar="FILE", help="a pipeline file, .yaml")],
    cron: Annotated[str | None, Option(help="such as '0 3 * * *' [default: the file's schedule.cron]")] = None,
    time_zone: Annotated[str | None, Option(help="such as Europe/Zurich [default: the file's]")] = None,
    by: Annotated[
        Literal["systemd", "cron"] | None, Option(help="[default: systemd where it runs, else cron]")
    ] = None,
    set_: Annotated[list[str] | None, Option("--set", metavar="NAME=VALUE", help="a parameter")] = None,
    storage: Storage = None,
    tracking_uri: Annotated[str | None, Option(help="MLflow's [default: SQLite in the storage]")] = None,
    address: Address = None,
    submit: Annotated[bool, Option("--submit", help="as a Ray job; so is an --address that is http")] = False,
    install: Annotated[bool, Option("--install", help="write it, and switch it on")] = False,
    remove: Annotated[bool, Option("--remove", help="switch it off, and delete it")] = False,
) -> None:
    """Show the systemd timer or the crontab line that runs a pipeline when it is due; install or remove it."""
    from r2m.config.paths import absolute
    from r2m.pipelines import timer as clocks
    from r2m.pipelines.spec import load_pipeline
    from r2m.pipelines.ticks import clocked

    if install and remove:
        raise UserError("--install, --remove: one of the two is allowed")
    submit = submit or (address or "").startswith(("http://", "https://"))
    if submit and address is None:
        raise UserError("--submit: --address http://HEAD:8265 is needed")
    pipeline = load_pipeline(file, set_ or [])
    by = by or ("systemd" if Path("/run/systemd/system").is_dir() else "cron")
    asked = clocked(pipeline.schedule, cron, time_zone)
    if asked.cron is None and not remove:
        raise UserError("--cron: none given, and none in the file (schedule.cron); such as --cron '0 3 * * *'")
    options = {
        "--tick": "due", "--cron": cron, "--time-zone": time_zone, "--storage": storage_path(storage),
        "--tracking-uri": tracking_uri, "--address": address,
    }  # fmt: skip
    words = [word for option, value in options.items() if value is not None for word in (option, value)]
    words += [word for setting in set_ or [] for word in ("--set", setting)]
    command = [_program(), "pipeline", "submit" if submit else "run", absolute(file), *words]
    log = Path(storage_path(storage)) / "pipelines" / f"{pipeline.name}.log"
    timer = clocks.Timer(pipeline.name, asked.cron or "", asked.zone, command, Path.cwd(), log)
    if remove:
        _remove(timer, by)
    elif by == "systemd":
        _systemd(timer, install)
    else:
        _cron(timer, install)


def _systemd(timer: Timer, install: bool) -> None:
    from r2m.pipelines.timer import install_systemd, systemd_units

    now = datetime.now(UTC)
    for name, text in systemd_units(timer, now).items():
        out.print(f"# ~/.config/systemd/user/{name}\n{text}", soft_wrap=True, highlight=False)
    if not install:
        return say("shown only; --install writes it and switches it on")
    for path in install_systemd(timer, now):
        out.print(f"written: {path}", soft_wrap=True, highlight=False)
    say(f"next: systemctl --user list-timers {timer.unit}.timer; output: journalctl --user -u {timer.unit}")
    say("it runs while you are logged in; loginctl enable-linger makes it run always")


def _cron(timer: Timer, install: bool) -> None:
    from r2m.pipelines.timer import crontab_line, install_crontab

    now = datetime.now(UTC)
    out.print(crontab_line(timer, now), soft_wrap=True, highlight=False)
    if not install:
        return say("shown only; --install adds it to your crontab")
    install_crontab(timer, now)
    say(f"added to your crontab; output: {timer.log}; cron runs nothing later that it missed while switched off")


def _remove(timer: Timer, by: str) -> None:
    from r2m.pipelines.timer import remove_crontab, remove_systemd

    gone = remove_systemd(timer.unit) if by == "systemd" else remove_crontab(timer.mark)
    for what in gone:
        out.print(f"removed: {what}", soft_wrap=True, highlight=False)
    if not gone:
        say(f"nothing to remove: {by} has no timer of {timer.name}")


def _program() -> str:
    """This program's own path: a timer has no shell's PATH."""
    beside = Path(sys.executable).with_name("r2m")
    return str(beside) if beside.exists() else os.path.abspath(sys.argv[0])
