"""Rows of prompts, completions and preference pairs in TRL's column formats, plain or conversational.

A plain value is text; a conversational one is a list of {"role", "content"} messages. Prompts may be implicit:
`chosen` and `rejected` are then whole texts or conversations that begin with the same prompt.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from r2m.errors import UserError
from r2m.tasks.prompt import Prompt

Row = dict[str, Any]
LOCAL = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")


def read_rows(data: str, split: str = "train", field: str = "task.data") -> list[Row]:
    """The rows of a local file (JSON lines, a JSON array or Parquet), or of a split of a data set on the hub.

    Raises UserError, one line, for a file that is missing, broken or empty, and for an unreachable data set.
    """
    path = Path(data)
    if path.is_file() or data.endswith(LOCAL):
        if not data.endswith(LOCAL):
            raise UserError(f"{field} = {data!r}: a local file must end in {', '.join(LOCAL)}")
        rows = _local_rows(path, f"{field} = {data!r}")
    else:
        rows = _hub_rows(data, split, field)
    if not rows:
        raise UserError(f"{field} = {data!r}: no rows; at least one is needed")
    return rows


def _local_rows(path: Path, what: str) -> list[Row]:
    if not path.is_file():
        raise UserError(f"{what}: no such file")
    try:
        if path.suffix == ".parquet":
            from pyarrow import parquet

            return parquet.read_table(path).to_pylist()
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    except (OSError, EOFError, zlib.error, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise UserError(f"{what}: cannot be read ({_brief(error)})") from None
    if text.lstrip().startswith("["):
        numbered = [(1, text)]
    else:
        numbered = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    rows: list[Row] = []
    for number, line in numbered:
        try:
            value = json.loads(line)
        except ValueError as error:
            raise UserError(f"{what}: line {number} is not JSON ({_brief(error)})") from None
        rows += value if isinstance(value, list) else [value]
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(f"{what}: row {i} is a {type(row).__name__}; rows must be JSON objects")
    return rows


def _hub_rows(data: str, split: str, field: str) -> list[Row]:
    from datasets import load_dataset

    try:
        return load_dataset(data, split=split).to_list()
    except Exception as error:  # the hub's client, the network and a set's files fail in dozens of ways
        raise UserError(
            f"{field} = {data!r}, split {split!r}: neither a local file ({', '.join(LOCAL)}) nor a data set to "
            f"be had from the hub ({_brief(error)})"
        ) from None


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def completions(rows: Sequence[Row]) -> list[tuple[Prompt, str]]:
    """Pairs for supervised fine-tuning, of the columns prompt and completion, or messages.

    Raises UserError that names the columns there are, or the row that is malformed.
    """
    if "messages" in rows[0]:
        return [_split(row, "messages", i) for i, row in enumerate(rows)]
    return [_split(row, "completion", i) for i, row in enumerate(rows)]


def preference_pairs(rows: Sequence[Row]) -> list[tuple[Prompt, str, str]]:
    """(prompt, chosen, rejected), of the columns chosen and rejected, with or without prompt.

    Raises UserError that names the columns there are, or the row that is malformed.
    """
    pairs = []
    for i, row in enumerate(rows):
        _need(row, "chosen", "rejected")
        if "prompt" not in row and isinstance(row["chosen"], str) and isinstance(row["rejected"], str):
            pairs.append(_implicit(row["chosen"], row["rejected"], i))
            continue
        prompt, chosen = _split(row, "chosen", i)
        other, rejected = _split(row, "rejected", i)
        if prompt.messages != other.messages:
            raise UserError(
                f"row {i}: chosen and rejected must be the same conversation up to its last message"
            )
        pairs.append((prompt, chosen, rejected))
    return pairs


def prompts(rows: Sequence[Row], column: str) -> list[Prompt]:
    """Prompts, with the chosen or supervised response as their reference where the rows have one."""
    first = rows[0]
    if "chosen" in first and "rejected" in first and column in ("prompt", "chosen"):
        return [replace(prompt, reference=chosen) for prompt, chosen, _ in preference_pairs(rows)]
    if ("completion" in first and column == "prompt") or ("messages" in first and column == "messages"):
        return [replace(prompt, reference=completion) for prompt, completion in completions(rows)]
    _need(first, column)
    return [_prompt(row[column], f"row {i}, {column}") for i, row in enumerate(rows)]


def _need(row: Row, *columns: str) -> None:
    missing = [column for column in columns if column not in row]
    if missing:
        raise UserError(f"no column {', '.join(missing)}; the data has {', '.join(row)}")


def _prompt(value: Any, what: str) -> Prompt:
    if isinstance(value, str):
        return Prompt(text=value)
    return Prompt(messages=tuple(_messages(value, what)))


def _messages(value: Any, what: str) -> list[dict[str, Any]]:
    if (
        isinstance(value, list)
        and value
        and all(isinstance(m, dict) and isinstance(m.get("content"), str) and "role" in m for m in value)
    ):
        return value
    raise UserError(
        f"{what} = {str(value)[:60]!r}: text or a list of messages with role and content is allowed"
    )


def _split(row: Row, column: str, number: int) -> tuple[Prompt, str]:
    """The prompt and the response of one row: the response is text, or the last message of a conversation."""
    _need(row, column)
    what = f"row {number}, {column}"
    value, prompt = row[column], row.get("prompt")
    if isinstance(value, str):
        _need(row, "prompt")
        return _prompt(prompt, f"row {number}, prompt"), value
    *before, answer = _messages(value, what)
    if answer["role"] != "assistant":
        raise UserError(f"{what}: its last message is the {answer['role']}'s; it must be the assistant's")
    if not before:  # else the conversation is whole, and a prompt column beside it repeats it
        _need(row, "prompt")
        asked = _prompt(prompt, f"row {number}, prompt")
        before = list(asked.messages or ({"role": "user", "content": asked.text},))
    elif isinstance(prompt, list) and before != prompt:
        raise UserError(f"{what}: one message of the assistant's must follow the prompt")
    return Prompt(messages=tuple(before)), answer["content"]


def _implicit(chosen: str, rejected: str, number: int) -> tuple[Prompt, str, str]:
    """The shared beginning of two texts is their prompt, up to the last whole word."""
    length = min(len(chosen), len(rejected))
    shared = next((i for i in range(length) if chosen[i] != rejected[i]), length)
    cut = max(chosen.rfind(space, 0, shared) for space in " \n")
    if cut <= 0:
        raise UserError(
            f"row {number}: without a prompt column, chosen and rejected must begin with a shared prompt"
        )
    return Prompt(text=chosen[:cut]), chosen[cut:], rejected[cut:]
