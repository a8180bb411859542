"""The tables that AlpacaEval's length-controlled rate needs: gamed rows, difficulties, published weights.

Every reader raises UserError, one line, for a file that is missing or malformed; it names the file, the row and the
column.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r2m.errors import UserError
from r2m.evaluation.alpaca_eval import Gamed, Weights
from r2m.tasks.files import Rows, read_rows

WEIGHTS = ("np.tanh(std_delta_len)", "instruction_difficulty", "not_gamed_baseline.astype(float)")


def read_gamed(path: str | Path) -> Gamed:
    """df_gamed.csv of the data set tatsu-lab/alpaca_eval, or that file in gzip."""
    columns = ("index", "preference", "std_delta_len", "instruction_difficulty")
    table = _csv_numbers(path, columns, "gamed")
    names = [row.get("model") for row in _csv_rows(path, columns, "gamed")]
    seen: dict[Any, int] = {}
    for i, (name, place, preference) in enumerate(zip(names, table["index"], table["preference"], strict=True)):
        what = f"gamed = {str(path)!r}, row {i}"
        if not 0 <= preference <= 1:
            raise UserError(f"{what}: preference = {preference}; 0 .. 1 is allowed")
        if name is not None:
            once(seen, (name, int(place)), i, f"{what}: model and index")
    baselines = {None if name is None else re.sub("_(concise|verbose)$", "", name) for name in names}
    whole = len(baselines) == 1 and not baselines & set(names)
    return Gamed(
        table["preference"],
        table["std_delta_len"],
        table["instruction_difficulty"],
        _difficulty_by_index(table, f"gamed = {str(path)!r}"),
        baselines.pop() if whole else None,
    )


def read_difficulty(path: str | Path) -> dict[int, float]:
    """A table with index and instruction_difficulty, as df_gamed.csv is one: all that published weights need."""
    table = _csv_numbers(path, ("index", "instruction_difficulty"), "difficulty")
    return _difficulty_by_index(table, f"difficulty = {str(path)!r}")


def _difficulty_by_index(table: Mapping[str, np.ndarray], what: str) -> dict[int, float]:
    found: dict[int, float] = {}
    for i, (place, value) in enumerate(zip(table["index"], table["instruction_difficulty"], strict=True)):
        if place != int(place) or place < 0:
            raise UserError(f"{what}, row {i}: index = {place}; a whole number from 0 on is allowed")
        if abs(found.setdefault(int(place), float(value)) - value) > 1e-6:
            raise UserError(f"{what}, row {i}: another instruction_difficulty of index {int(place)} than before")
    return found


def read_weights(path: str | Path) -> dict[str, Weights]:
    """Model -> weights, of a table like the leaderboard's baseline_gpt4_1106_preview.csv."""
    rows = _csv_rows(path, WEIGHTS, "weights")
    names = [row[next(iter(row))] for row in rows]  # the first column, which has no heading
    seen: dict[Any, int] = {}
    for i, name in enumerate(names):
        once(seen, name, i, f"weights = {str(path)!r}, row {i}: the model")
    table = _csv_numbers(path, WEIGHTS, "weights")
    return {name: Weights(*map(float, values)) for name, *values in zip(names, *table.values(), strict=True)}


def once(seen: dict[Any, int], value: Any, row: int, what: str) -> None:
    """Raises UserError for a value that an earlier row has."""
    first = seen.setdefault(value, row)
    if first != row:
        raise UserError(f"{what} {repr(value)[:60]} is there twice, in row {first} too")


def _csv_rows(path: str | Path, columns: Sequence[str], field: str) -> Rows:
    rows = read_rows(str(path), field=field)
    missing = [column for column in columns if column not in rows[0]]
    if missing:
        raise UserError(f"{field} = {str(path)!r}: no rows with {', '.join(missing)}")
    return rows


def _csv_numbers(path: str | Path, columns: Sequence[str], field: str) -> dict[str, np.ndarray]:
    """Column -> its values, all finite."""
    table: dict[str, list[float]] = {column: [] for column in columns}
    for i, row in enumerate(_csv_rows(path, columns, field)):
        for column, values in table.items():
            try:
                value = float(row[column])
            except (TypeError, ValueError):  # a short row has None
                value = math.nan
            if not math.isfinite(value):
                raise UserError(
                    f"{field} = {str(path)!r}, row {i}: {column} = {row[column]!r}; a finite number is needed"
                )
            values.append(value)
    return {column: np.array(values) for column, values in table.items()}
