"""r2m: the command line. Each command is a few lines over the package; heavy imports wait until they are needed."""

import errno
import os
import sys
from typing import NoReturn

import typer

from r2m.cli import compare, dashboards, evaluate, models, paper, pipeline, runs, sweep
from r2m.cli.common import err
from r2m.errors import UserError, one_line

FAULTS = {  # of the machine, or of a path that a user gave: nothing that a trace would explain
    errno.ENOSPC: "disk full", errno.EDQUOT: "disk quota", errno.EROFS: "disk", errno.EACCES: "no permission",
    errno.EPERM: "no permission", errno.ENOTDIR: "path", errno.EISDIR: "path", errno.ENAMETOOLONG: "path",
    errno.ELOOP: "path", errno.EEXIST: "path",
}  # fmt: skip

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Is the reward model being hacked, and does policy feedback help? Train, sweep, track and compare runs.",
)
for commands in (sweep, runs, compare, evaluate, models, paper, dashboards, pipeline):
    app.add_typer(commands.app)


def main() -> None:
    """The console script: a user's mistake is one line and exit code 2."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # the bars and lines that matter are our own
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    try:
        code = app(standalone_mode=False)  # of a typer.Exit
    except UserError as error:
        _refuse(str(error))
    except OSError as error:
        if error.errno not in FAULTS:
            raise
        _refuse(one_line(f"{FAULTS[error.errno]}: {error}"))
    except Exception as error:  # typer's own have no public name
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
            sys.exit(2)
        if not hasattr(error, "format_message"):
            raise
        _refuse(one_line(error.format_message()))
    sys.exit(code if isinstance(code, int) else 0)


def _refuse(message: str) -> NoReturn:
    err.print(f"error: {message}", highlight=False, soft_wrap=True)
    sys.exit(2)
