"""A pipeline on the machine's own clock."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from r2m.cli.common import check_driver, out
from r2m.cli.options import Address, Storage, TrackingUri, storage_path
from r2m.cli.pipeline_options import Cron, File, SetParameter, TimeZone
from r2m.errors import UserError


def schedule(
    file: File,
    cron: Cron = None,
    time_zone: TimeZone = None,
    set_: SetParameter = None,
    storage: Storage = None,
    tracking_uri: TrackingUri = None,
    address: Address = None,
    submit: Annotated[
        bool, Option("--submit", help="as a job of the Ray cluster whose dashboard --address is")
    ] = False,
    by: Annotated[Literal["systemd", "cron"] | None, Option(help="[default: systemd, where it is there]")] = None,
    install: Annotated[bool, Option("--install", help="write it, and start the clock")] = False,
    remove: Annotated[bool, Option("--remove", help="stop the clock, and take it away")] = False,
) -> None:
    """A systemd timer or a crontab line that runs a pipeline when it is due; shown, and installed when asked."""
    from r2m.pipelines.spec import load_pipeline, on_clock
    from r2m.pipelines.timer import LOG_NAME, Clockwork, CrontabLine, SystemdTimer

    if install and remove:
        raise UserError("--install, --remove: give one of the two")
    if submit and address is None:
        raise UserError("--submit: --address is needed, that of the cluster's dashboard: http://HEAD:8265")
    if not submit:
        check_driver(address)
    asked = on_clock(load_pipeline(file, set_ or []), cron, time_zone)
    if asked.schedule.cron is None:
        raise UserError("--cron: missing, and the file has no schedule.cron")
    where = storage_path(storage)
    command = [_this_program(), "pipeline", "submit" if submit else "run", os.path.abspath(file), "--tick", "due"]
    command += [word for setting in set_ or () for word in ("--set", setting)]
    options = {"--cron": cron, "--time-zone": time_zone, "--storage": where, "--tracking-uri": tracking_uri,
               "--address": address}  # fmt: skip
    command += [word for option, value in options.items() if value is not None for word in (option, value)]
    of = Clockwork(asked.name, asked.schedule, command, Path.cwd(), Path(where) / "pipelines" / LOG_NAME)
    if by is None:
        by = "systemd" if shutil.which("systemctl") else "cron"
    clock = SystemdTimer(of) if by == "systemd" else CrontabLine(of)
    if not (install or remove):
        out.print(clock.shown(), soft_wrap=True, highlight=False)
        out.print("\nnot installed: --install does that", soft_wrap=True, highlight=False)
        return
    for line in clock.install() if install else clock.remove():
        out.print(line, soft_wrap=True, highlight=False)


def _this_program() -> str:
    """Its path: a clock's own search path is another."""
    beside = Path(sys.executable).with_name("r2m")
    return str(beside) if beside.is_file() else os.path.abspath(sys.argv[0])
