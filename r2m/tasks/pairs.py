"""The preference pairs that a reward model was trained on: kept beside the embedded task's, or given as data."""

import json
from collections.abc import Sequence
from pathlib import Path

from r2m.config import Config
from r2m.errors import UserError
from r2m.files import made_whole
from r2m.tasks.columns import PreferencePair, comparable, preference_pairs
from r2m.tasks.files import read_rows
from r2m.tasks.text import shaped

PAIRS = "preference_pairs.jsonl"  # beside a reward model


def write_pairs(folder: Path, pairs: Sequence[PreferencePair]) -> None:
    rows = ({"prompt": prompt.shown, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in pairs)
    with made_whole(folder / PAIRS, folder / f".{PAIRS}.writing"):
        (folder / f".{PAIRS}.writing").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def original_pairs(config: Config, reward_model: str) -> list[PreferencePair]:
    """Those that anchor the head of a run with this reward model: `reward.anchor_data`, or what is kept beside it.
    Plain prompts are put as a text task puts its own.

    Raises UserError where there are none.
    """
    data, beside = config.reward.anchor_data, Path(reward_model) / PAIRS
    if data is None and not beside.is_file():
        raise UserError(
            f"reward.anchor = {config.reward.anchor:g}: no {PAIRS} beside reward model {reward_model!r}; name the "
            "pairs that it was trained on by reward.anchor_data"
        )
    field = "reward.anchor_data"
    read = comparable(preference_pairs(read_rows(data or str(beside), field=field)))
    if not read:
        raise UserError(f"{field} = {data!r}: no usable pairs ({read.left_out})")
    task = config.task
    if task.kind == "forum":
        return list(read)
    return [
        (prompt if prompt.text is None else shaped(prompt, task.instruction, task.as_chat), chosen, rejected)
        for prompt, chosen, rejected in read
    ]
