"""AlpacaEval's files: model_outputs.json and annotations.json.

model_outputs.json is a list of {instruction, output, generator, dataset}; annotations.json one of {instruction,
output_1, generator_1, dataset, output_2, generator_2, annotator, preference}, where 1 is the baseline and 2 the
model. Other keys are ignored and, in outputs, kept; "index", an instruction's place in the evaluation set, is read
where there is one. Every reader raises UserError for a file that is missing or malformed; it names file, row and
key.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from r2m.errors import UserError
from r2m.evaluation.alpaca_eval import Annotations
from r2m.evaluation.alpaca_tables import once
from r2m.files import write_whole
from r2m.tasks.files import read_rows

AlpacaRow = dict[str, Any]

NAMELESS = "Current model"  # alpaca-eval's name for outputs without a generator


def read_outputs(path: str | Path) -> list[AlpacaRow]:
    """The rows of one model, each with instruction, output and generator."""
    rows = _rows(path, "outputs")
    seen: dict[Any, int] = {}
    for i, row in enumerate(rows):
        what = f"outputs = {str(path)!r}, row {i}"
        row.setdefault("generator", NAMELESS)
        _text(row, "output", what)
        once(seen, _text(row, "instruction", what), i, f"{what}: the instruction")
        _the_same(row, "generator", rows[0], what)
    return rows


@dataclass(frozen=True)
class EvaluationSet:
    """`index`: of an instruction. `baseline`: whose outputs they came with, None where the file doesn't say."""

    index: Mapping[str, int]
    baseline: str | None
    by_position: bool  # the rows had no index of their own


def read_evaluation_set(path: str | Path) -> EvaluationSet:
    """The instructions of a baseline's outputs, each with its index or, where no row has one, its position."""
    rows = read_outputs(path)
    by_position = "index" not in rows[0]
    index: dict[str, int] = {}
    taken: dict[Any, int] = {}
    for i, row in enumerate(rows):
        what = f"outputs = {str(path)!r}, row {i}"
        index[row["instruction"]] = i if by_position else _index(row, what)
        once(taken, index[row["instruction"]], i, f"{what}: index =")
    name = rows[0]["generator"]
    return EvaluationSet(index, None if name == NAMELESS else name, by_position)


def read_annotations(path: str | Path, instructions: EvaluationSet | None = None) -> Annotations:
    """A judge's preferences between one model and one baseline, one of each instruction.

    The index of a row is that of its instruction in `instructions`, or else its own; where neither is there, the
    annotations have none.
    """
    rows = _rows(path, "annotations")
    index, preference, lengths = [], [], []
    texts, indices = dict[Any, int](), dict[Any, int]()
    by_index = instructions is not None or "index" in rows[0]
    for i, row in enumerate(rows):
        what = f"annotations = {str(path)!r}, row {i}"
        for side in ("generator_1", "generator_2"):
            _the_same(row, side, rows[0], what)
        if "instruction" in row or not by_index:
            once(texts, _text(row, "instruction", what), i, f"{what}: the instruction")
        if by_index:
            index.append(_index(row, what) if instructions is None else _place(row, instructions, what))
            once(indices, index[-1], i, f"{what}: index =")
        preference.append(_preference(row, what))
        lengths.append([len(_text(row, side, what)) for side in ("output_1", "output_2")])
    len_1_N, len_2_N = np.array(lengths).T
    model, baseline, index_N = rows[0]["generator_2"], rows[0]["generator_1"], np.array(index) if by_index else None
    return Annotations(model, baseline, index_N, np.array(preference), len_1_N, len_2_N)


def annotation_rows(
    baseline: Sequence[AlpacaRow], model: Sequence[AlpacaRow], wins: Mapping[str, float | None], annotator: str
) -> list[AlpacaRow]:
    """Rows for annotations.json, of the instructions that both have, in the baseline's order.

    `wins`: by instruction, the preference for the model in [0, 1], None where the judge gave none. Raises ValueError
    for another one.
    """
    outputs = {row["instruction"]: row for row in model}
    pairs = [(one, outputs[one["instruction"]]) for one in baseline if one["instruction"] in outputs]
    rows = []
    for one, two in pairs:
        win = wins.get(one["instruction"])
        if win is not None and not 0 <= win <= 1:
            raise ValueError(f"wins[{one['instruction'][:60]!r}] = {win}: 0 .. 1 is allowed")
        rows.append({
            "instruction": one["instruction"], "output_1": one["output"], "generator_1": one["generator"],
            "dataset": one.get("dataset"), "output_2": two["output"], "generator_2": two["generator"],
            "annotator": annotator, "preference": None if win is None else 1 + win,
        })  # fmt: skip
    return rows


def write_rows(path: str | Path, rows: Sequence[AlpacaRow]) -> None:
    """Outputs or annotations, whole or not at all. Raises OSError."""
    write_whole(path, json.dumps(list(rows), indent=2, allow_nan=False) + "\n")


def _rows(path: str | Path, field: str) -> list[AlpacaRow]:
    try:
        found = Path(path).is_file()
    except (OSError, ValueError):  # a name that is too long, or has a NUL
        found = False
    if not found:
        raise UserError(f"{field} = {str(path)!r}: no such file")
    return read_rows(str(path), field=field)


def _text(row: AlpacaRow, key: str, what: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise UserError(f"{what}: {key} = {repr(value)[:60]}; text is needed")
    return value


def _the_same(row: AlpacaRow, key: str, first: AlpacaRow, what: str) -> None:
    if _text(row, key, what) != first[key]:
        raise UserError(f"{what}: {key} = {row[key]!r}, and {first[key]!r} in row 0; one file is of one model")


def _index(row: AlpacaRow, what: str) -> int:
    index = row.get("index")
    if type(index) is not int or not 0 <= index < 1 << 31:
        raise UserError(f"{what}: index = {repr(index)[:60]}; a whole number from 0 on is allowed")
    return index


def _place(row: AlpacaRow, instructions: EvaluationSet, what: str) -> int:
    instruction = _text(row, "instruction", what)
    place = instructions.index.get(instruction)
    if place is None:
        raise UserError(f"{what}: the instruction {instruction[:60]!r} is not in the evaluation set")
    if "index" in row and row["index"] != place:
        raise UserError(f"{what}: index = {repr(row['index'])[:60]}, and {place} in the evaluation set")
    if instructions.baseline not in (None, row["generator_1"]):
        raise UserError(
            f"{what}: generator_1 = {row['generator_1']!r}; the outputs of the evaluation set are those of "
            f"{instructions.baseline!r}"
        )
    return place


def _preference(row: AlpacaRow, what: str) -> float:
    if "preference" not in row:
        raise UserError(f"{what}: no preference; 1 .. 2, 0 for a tie, or null is allowed")
    value = math.nan if row["preference"] is None else row["preference"]
    if type(value) not in (int, float) or not (value == 0 or 1 <= value <= 2 or value != value):
        raise UserError(f"{what}: preference = {repr(value)[:60]}; 1 .. 2, 0 for a tie, or null is allowed")
    return float(value)
