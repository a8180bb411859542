"""r2m: the command line. Each command is a few lines over the package; heavy imports wait until they are needed."""

from __future__ import annotations

import errno
import os
import sys

import typer

from r2m.cli import compare, evaluate, models, paper, runs, sweep
from r2m.cli.common import err
from r2m.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Is the reward model being hacked, and does policy feedback help? Train, sweep, track and compare runs.",
)
for commands in (sweep, runs, compare, evaluate, models, paper):
    app.add_typer(commands.app)


def main() -> None:
    """The console script: a user's mistake is one line and exit code 2."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # the bars and lines that matter are our own
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app()
    except UserError as error:
        err.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        err.print(f"error: disk full: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
