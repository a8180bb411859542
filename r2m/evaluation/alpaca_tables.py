"""The tables that AlpacaEval's length-controlled rate needs: gamed rows, difficulties, published weights.

Every reader raises UserError for a file that is missing or malformed; it names the file, the row and the column.
"""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import product
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
    rows, table = _read(path, columns, "gamed")
    names = [row.get("model") for row in rows]
    seen: dict[Any, int] = {}
    for i, (name, place, preference) in enumerate(zip(names, table["index"], table["preference"], strict=True)):
        what = f"gamed = {str(path)!r}, row {i}"
        if not 0 <= preference <= 1:
            raise UserError(f"{what}: preference = {preference}; 0 .. 1 is allowed")
        if name is not None:
            once(seen, (name, int(place)), i, f"{what}: model and index")
    baselines = {None if name is None else re.sub("_(concise|verbose)$", "", name) for name in names}
    whole = len(baselines) == 1 and not baselines & set(names)
    difficulty = _difficulty_by_index(table, f"gamed = {str(path)!r}")
    *_, preference_G, std_delta_len_G, difficulty_G = table.values()
    return Gamed(preference_G, std_delta_len_G, difficulty_G, difficulty, baselines.pop() if whole else None)


def read_difficulty(path: str | Path) -> dict[int, float]:
    """A table with index and instruction_difficulty, as df_gamed.csv is one: all that published weights need."""
    _, table = _read(path, ("index", "instruction_difficulty"), "difficulty")
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
    rows, table = _read(path, WEIGHTS, "weights")
    names = [row[next(iter(row))] for row in rows]  # the first column, which has no heading
    seen: dict[Any, int] = {}
    for i, name in enumerate(names):
        once(seen, name, i, f"weights = {str(path)!r}, row {i}: the model")
    return {name: Weights(*map(float, values)) for name, *values in zip(names, *table.values(), strict=True)}


def once(seen: dict[Any, int], value: Any, row: int, what: str) -> None:
    """Raises UserError for a value that an earlier row has."""
    first = seen.setdefault(value, row)
    if first != row:
        raise UserError(f"{what} {repr(value)[:60]} is there twice, in row {first} too")


def _read(path: str | Path, columns: Sequence[str], field: str) -> tuple[Rows, dict[str, np.ndarray]]:
    """The rows, and of these columns the values, all finite."""
    rows, name = read_rows(str(path), field=field), f"{field} = {str(path)!r}"
    if missing := [column for column in columns if column not in rows[0]]:
        raise UserError(f"{name}: no rows with {', '.join(missing)}")
    table = {column: np.empty(len(rows)) for column in columns}
    for (i, row), column in product(enumerate(rows), columns):
        value: Any = row.get(column)  # None in a short row
        try:
            table[column][i] = float(value)
        except (TypeError, ValueError):
            table[column][i] = math.nan
        if not math.isfinite(table[column][i]):
            raise UserError(f"{name}, row {i}: {column} = {value!r}; a finite number is needed")
    return rows, table
