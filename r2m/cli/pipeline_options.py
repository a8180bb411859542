"""Options that the commands of pipelines share."""

from typing import Annotated

from typer import Argument, Option

File = Annotated[str, Argument(metavar="FILE", help="a pipeline file, .yaml")]
Tick = Annotated[str | None, Option(metavar="TIME|due", help="whose execution it is; due: by the file's schedule")]
SetParameter = Annotated[list[str] | None, Option("--set", metavar="NAME=VALUE", help="a parameter of the pipeline")]
Cron = Annotated[str | None, Option(metavar="EXPRESSION", help="in the place of the file's schedule.cron")]
TimeZone = Annotated[str | None, Option(metavar="ZONE", help="in the place of the file's schedule.time_zone")]
