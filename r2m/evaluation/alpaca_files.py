"""AlpacaEval's files: model_outputs.json, annotations.json, and the tables that its length-controlled rate needs.

model_outputs.json is a list of {instruction, output, generator, dataset}; annotations.json one of {instruction,
output_1, generator_1, dataset, output_2, generator_2, annotator, preference}, where 1 is the baseline and 2 the
model. Other keys are read over and, of outputs, kept. Every reader raises UserError, one line, for a file that is
missing or malformed; it names the file, the row and the key.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from r2m.errors import UserError
from r2m.evaluation.alpaca_eval import Annotations, Gamed, Weights
from r2m.tasks.files import read_rows

Row = dict[str, Any]

NAMELESS = "Current model"  # alpaca-eval's name for outputs without a generator
WEIGHTS = ("np.tanh(std_delta_len)", "instruction_difficulty", "not_gamed_baseline.astype(float)")


def read_outputs(path: str | Path) -> list[Row]:
    """The rows of one model, each with instruction, output and generator."""
    rows = read_rows(str(path), field="outputs")
    seen: set[str] = set()
    for i, row in enumerate(rows):
        what = f"outputs = {str(path)!r}, row {i}"
        row.setdefault("generator", NAMELESS)
        instruction = _text(row, "instruction", what)
        _text(row, "output", what)
        _the_same(row, "generator", rows[0], what)
        if instruction in seen:
            raise UserError(f"{what}: the instruction {instruction[:60]!r} is there twice")
        seen.add(instruction)
    return rows


def read_annotations(path: str | Path, instructions: Sequence[str] | None = None) -> Annotations:
    """A judge's preferences between one model and one baseline.

    `instructions`: the evaluation set, to find the index of each row in; without it that is the row's "index", or
    its position as alpaca-eval has it, which is right only if no row is missing.
    """
    rows = read_rows(str(path), field="annotations")
    places = None if instructions is None else {text: i for i, text in enumerate(instructions)}
    index, preference, lengths = [], [], []
    for i, row in enumerate(rows):
        what = f"annotations = {str(path)!r}, row {i}"
        for side in ("generator_1", "generator_2"):
            _the_same(row, side, rows[0], what)
        index.append(_index(row, i, places, what))
        preference.append(_preference(row.get("preference"), what))
        lengths.append([len(_text(row, side, what)) for side in ("output_1", "output_2")])
    len_1_N, len_2_N = np.array(lengths).T
    return Annotations(
        rows[0]["generator_2"],
        rows[0]["generator_1"],
        np.array(index),
        np.array(preference),
        len_1_N,
        len_2_N,
    )


def annotation_rows(
    baseline: Sequence[Row], model: Sequence[Row], wins: Mapping[str, float | None], annotator: str
) -> list[Row]:
    """Rows for annotations.json, of the instructions that both have, in the baseline's order.

    `wins`: by instruction, the preference for the model in [0, 1], None where the judge gave none.

    Raises ValueError for a preference outside of that.
    """
    outputs = {row["instruction"]: row for row in model}
    rows = []
    for one in baseline:
        two = outputs.get(one["instruction"])
        if two is None:
            continue
        win = wins.get(one["instruction"])
        if win is not None and not 0 <= win <= 1:
            raise ValueError(f"wins[{one['instruction'][:60]!r}] = {win}: 0 .. 1 is allowed")
        rows.append(
            {
                "instruction": one["instruction"],
                "output_1": one["output"],
                "generator_1": one["generator"],
                "dataset": one.get("dataset"),
                "output_2": two["output"],
                "generator_2": two["generator"],
                "annotator": annotator,
                "preference": None if win is None else 1 + win,
            }
        )
    return rows


def write_rows(path: str | Path, rows: Sequence[Row]) -> None:
    """Outputs or annotations, whole or not at all. Raises OSError."""
    part = Path(f"{path}.part")
    part.write_text(json.dumps(list(rows), indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    os.replace(part, path)


def read_gamed(path: str | Path) -> Gamed:
    """df_gamed.csv of the data set tatsu-lab/alpaca_eval, or that file in gzip."""
    columns = ("index", "preference", "std_delta_len", "instruction_difficulty")
    index, preference, std_delta_len, difficulty = _csv_numbers(path, columns, "gamed").values()
    of = {
        int(i): float(value) for i, value in zip(index[::-1], difficulty[::-1], strict=True)
    }  # the first counts
    return Gamed(preference, std_delta_len, difficulty, of)


def read_difficulty(path: str | Path) -> dict[int, float]:
    """A table of index and instruction_difficulty: all that published weights need."""
    table = _csv_numbers(path, ("index", "instruction_difficulty"), "difficulty")
    return {int(i): float(value) for i, value in zip(*table.values(), strict=True)}


def read_weights(path: str | Path) -> dict[str, Weights]:
    """Model -> weights, of a table like the leaderboard's baseline_gpt4_1106_preview.csv."""
    rows = _csv_rows(path, WEIGHTS, "weights")
    names = [row[next(iter(row))] for row in rows]  # the first column, which has no heading
    table = _csv_numbers(path, WEIGHTS, "weights")
    return {name: Weights(*map(float, values)) for name, *values in zip(names, *table.values(), strict=True)}


def _text(row: Row, key: str, what: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise UserError(f"{what}: {key} = {repr(value)[:60]}; text is needed")
    return value


def _the_same(row: Row, key: str, first: Row, what: str) -> None:
    if _text(row, key, what) != first[key]:
        raise UserError(
            f"{what}: {key} = {row[key]!r}, and {first[key]!r} in row 0; one file is of one model"
        )


def _index(row: Row, position: int, places: Mapping[str, int] | None, what: str) -> int:
    if places is not None:
        instruction = _text(row, "instruction", what)
        if instruction not in places:
            raise UserError(f"{what}: the instruction {instruction[:60]!r} is not in the evaluation set")
        return places[instruction]
    index = row.get("index", position)
    if not isinstance(index, int) or index < 0:
        raise UserError(f"{what}: index = {index!r}; a whole number from 0 on is allowed")
    return index


def _preference(value: Any, what: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{what}: preference = {repr(value)[:60]}; a number or null is allowed")
    if not (math.isnan(value) or value == 0 or 1 <= value <= 2):
        raise UserError(f"{what}: preference = {value}; 1 .. 2, 0 for a tie, or null is allowed")
    return float(value)


def _csv_rows(path: str | Path, columns: Sequence[str], field: str) -> list[dict[str, str]]:
    try:
        raw = Path(path).read_bytes()
        text = (gzip.decompress(raw) if str(path).endswith(".gz") else raw).decode()
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        raise UserError(
            f"{field} = {str(path)!r}: cannot be read ({' '.join(str(error).split())[:160]})"
        ) from None
    missing = [column for column in columns if not rows or column not in rows[0]]
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
