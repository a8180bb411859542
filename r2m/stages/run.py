"""A stage on a file of data: from a model and rows to a trained model in a new folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r2m.errors import UserError
from r2m.models.loading import load_tokenizer
from r2m.stages.common import Progress, check_end, new_folder, save_trained, silent
from r2m.tasks.columns import Read
from r2m.tasks.files import Rows, read_rows
from r2m.tasks.text import accepted, shaped


def run_stage(
    stage: str,
    read: Callable[[Rows], Read[Any]],
    load: Callable[[PreTrainedTokenizerBase, int, str], PreTrainedModel],
    train: Callable[..., dict[str, Any]],
    model: str,
    data: str,
    out: Path,
    *,
    split: str = "train",
    instruction: str | None = None,
    as_chat: bool = False,
    limit: int | None = None,
    device: str = "cpu",
    progress: Progress = silent,
    **options: Any,
) -> dict[str, Any]:
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
        save_trained(folder, trained, tokenizer, report | {"stage": stage, "model": model, "data": data})
    return report
