"""What both stages before RL share: splits, batches, the schedule, and the way from a file of data to a
folder that is whole or absent."""

import json
import random
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r2m.errors import UserError
from r2m.files import check_room, made_whole
from r2m.models.families import context_of
from r2m.models.loading import load_tokenizer
from r2m.models.saving import BARE_WEIGHTS, check_savable, save_model, save_weights, told
from r2m.reward.features import save_features
from r2m.stages.progress import Progress, silent
from r2m.tasks.columns import Read
from r2m.tasks.files import Rows, read_rows
from r2m.tasks.text import accepted, shaped

_Item = TypeVar("_Item")


def hold_out(
    items: Sequence[_Item], share: float, seed: int, left_out: int = 0, equal: int = 0
) -> tuple[list[_Item], list[_Item]]:
    """A random (training, held-out) split, at least one item in either.

    Raises UserError for fewer than two items; it says how many rows were `left_out` as too long, or for `equal`
    responses.
    """
    if len(items) < 2:
        more = f", {equal} whose two responses are the same tokens" if equal else ""
        raise UserError(
            f"data: {len(items)} usable rows, {left_out} longer than max_tokens{more}; at least 2 are needed, one "
            "of them held out"
        )
    order = random.Random(seed).sample(range(len(items)), len(items))
    count = min(max(1, round(share * len(items))), len(items) - 1)
    return [items[i] for i in order[count:]], [items[i] for i in order[:count]]


def batches(lengths: Sequence[int], size: int, seed: int) -> Iterator[list[int]]:
    """Indices, batch by batch, pass after pass without end; a batch holds sequences of like length."""
    rng = random.Random(seed)
    stretch = 16 * size  # sorted within this many, so that batches are still random
    while True:
        order = rng.sample(range(len(lengths)), len(lengths))
        alike = (sorted(order[i : i + stretch], key=lengths.__getitem__) for i in range(0, len(order), stretch))
        parts = [like[i : i + size] for like in alike for i in range(0, len(like), size)]
        rng.shuffle(parts)
        yield from parts


def optimizer_step(
    parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer, peak: float, step: int, total: int
) -> None:
    """Step `step` (from 0) of `total`: gradient norm cut at 1, linear warm-up over 5 %, linear decay to 0."""
    warm_up = max(1, total // 20)
    for group in optimizer.param_groups:
        group["lr"] = peak * min((step + 1) / warm_up, (total - step) / max(1, total - warm_up), 1.0)
    norm = nn.utils.clip_grad_norm_(parameters, 1.0)
    if not norm < float("inf"):
        raise FloatingPointError(f"step {step}: the gradient's norm is {norm}; the training has diverged")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def training(model: PreTrainedModel, lr: float, total: int, phase: str, progress: Progress) -> Iterator[int]:
    """The `total` steps of AdamW over all weights: the gradients are made between one and the next."""
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0, fused=True)
    for step in range(total):
        yield step
        optimizer_step(parameters, optimizer, lr, step, total)
        progress(phase, step + 1, total)
    model.eval()


def check_lengths(longest: int, model: PreTrainedModel) -> None:
    """Raises UserError where a sequence is longer than the model's context."""
    context = context_of(model.config)
    if context is not None and longest > context:
        raise UserError(
            f"data: its longest sequence has {longest} tokens, the context of "
            f"{model.config.name_or_path!r} is {context}; leave such rows out with max_tokens"
        )


def check_new(out: Path) -> None:
    """Raises UserError where it holds something already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"out = {str(out)!r}: it exists; name a new or an empty folder")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary sibling that becomes `out` at the end, if nothing fails.

    Raises UserError where `out` holds something already. After a KeptError the weights stay in a folder beside
    `out`.
    """
    check_new(out)
    with made_whole(out, out.with_name(out.name + ".partial")) as partial:
        partial.mkdir(parents=True)
        try:
            yield partial
        except KeptError as error:
            kept = out.with_name(f"{out.name}.unsaved-{secrets.token_hex(2)}")
            partial.rename(kept)
            raise UserError(f"out = {str(out)!r}: {error}; its weights are kept: {kept / BARE_WEIGHTS}") from error


class KeptError(RuntimeError):
    """A trained model could not be saved as a Hugging Face folder; its bare weights were kept."""


def check_end(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, what: str) -> None:
    """Raises UserError where the model that is to be trained now could not be saved in `folder` afterwards."""
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    check_room(folder, size, f"out = {str(folder.parent)!r}", "the trained model's weights")
    check_savable(model, tokenizer, folder, what)


def save_trained(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, report: dict[str, Any]
) -> None:
    """The model, its tokenizer, and report.json beside them.

    Raises KeptError where the model's own code fails: its bare weights are then in the folder.
    """
    try:
        with told("the trained model could not be saved", KeptError):
            save_model(folder, model, tokenizer)
    except KeptError:
        save_weights(folder, model)
        raise
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")


def run_stage(
    stage: str, read: Callable[[Rows], Read[Any]],
    load: Callable[[PreTrainedTokenizerBase, int, str], PreTrainedModel], train: Callable[..., dict[str, Any]],
    model: str, data: str, out: Path, *,
    split: str = "train", instruction: str | None = None, as_chat: bool = False, limit: int | None = None,
    device: str = "cpu", progress: Progress = silent, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """The report of the training, which is in `out`, too: report.json, beside the model. It says in `data_left_out`
    what rows are not used, and why.

    Args:
        read: rows as tuples that begin with a prompt.
        load: the model, for a tokenizer, a seed and a device.
        train: the stage, whose `options` these are; the seed is one of them.

    Raises UserError, one line, for unusable input.
    """
    with new_folder(out) as folder:
        tokenizer = load_tokenizer(model, "model")
        rows = read(read_rows(data, split, "data", limit))
        asked: Iterable[Any] = ((shaped(prompt, instruction, as_chat), *texts) for prompt, *texts in rows)
        examples = list(accepted(asked, rows.left_out, tokenizer))
        if len(examples) < 2:
            why = f"; {rows.left_out}" if rows.left_out else ""
            raise UserError(f"data = {data!r}: {len(examples)} usable rows, and at least 2 are needed{why}")
        trained = load(tokenizer, options.get("seed", 0), device)
        check_end(trained, tokenizer, folder, f"model = {model!r}")
        report = train(trained, tokenizer, examples, progress=progress, **options)
        report["data_left_out"] = rows.left_out.tree()
        moment = report.pop("moment", None)
        save_trained(folder, trained, tokenizer, report | {"stage": stage, "model": model, "data": data})
        if moment is not None:
            save_features(folder, moment)
    return report
