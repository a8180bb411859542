"""Rows of a local file, however people keep it, or of a split of a data set on the hub.

Read are JSON lines, one JSON document (a list of rows, or an object that holds such lists by split or as "data"),
CSV and TSV with a header, and Parquet; text in UTF-8, -16 or -32, with or without a byte-order mark; gzip, whatever
the name says. A table's cells may be parted by semicolons, too, as spreadsheets write them where a comma is in
numbers.
"""

import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from r2m.errors import UserError, brief

Row = dict[str, Any]

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
ALLOWED = ".jsonl, .ndjson, .json, .csv, .tsv (these also .gz) or .parquet"
KNOWN_COLUMNS = {"prompt", "completion", "messages", "conversations", "chosen", "rejected", "instruction"}
GZIP, PARQUET = b"\x1f\x8b", b"PAR1"
DELIMITERS = ",\t;|"
LARGEST_CELL = (1 << 31) - 1  # characters; Python's own limit is 131,072
FOREIGN = {
    b"\x28\xb5\x2f\xfd": "Zstandard: unpack it (zstd -d)",
    b"BZh": "bzip2: unpack it (bunzip2)",
    b"\xfd7zXZ": "xz: unpack it (unxz)",
    b"PK\x03\x04": "a zip archive or a spreadsheet: unpack it, or export it as CSV",
    b"ARROW1": "Arrow: write it as Parquet",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file itself (git lfs pull)",
}


class Rows(list[Row]):
    """Rows that know where they come from: `name` is their source, as an error names it."""

    def __init__(self, rows: Iterable[Row] = (), name: str = "data", lines: Sequence[int] | None = None) -> None:
        super().__init__(rows)
        self.name, self._lines = name, lines

    def place(self, i: int) -> str:
        """A row of a text file is named by its line, from 1; of a list, Parquet or the hub by its index, from 0."""
        return f"line {self._lines[i]}" if self._lines is not None else f"row {i}"


def read_rows(data: str, split: str = "train", field: str = "task.data", limit: int | None = None) -> Rows:
    """All rows, or the first `limit`. `split`: of a data set on the hub, or of a JSON object that holds splits.

    Raises UserError, one line, for a file that is missing, broken or empty, and for an unreachable data set.
    """
    path, name = Path(data), f"{field} = {data!r}"
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if path.is_file() and suffix not in SUFFIXES:
        raise UserError(f"{name}: a local file must end in {ALLOWED}")
    local = suffix in SUFFIXES
    rows, lines = _local_rows(path, suffix, split, name) if local else (_hub_rows(data, split, name), None)
    if not rows:
        raise UserError(f"{name}: no rows; at least one is needed")
    table = Rows(rows[:limit], name, lines)
    for i, row in enumerate(table):
        if not isinstance(row, dict):
            raise UserError(f"{name}: {table.place(i)} is a {type(row).__name__}; rows must be JSON objects")
    return table


def _local_rows(path: Path, suffix: str, split: str, name: str) -> tuple[list[Row], list[int] | None]:
    """Rows, and the line of each where they have lines."""
    if not path.is_file():
        raise UserError(f"{name}: no such file")
    try:
        raw = path.read_bytes()
        while raw.startswith(GZIP):  # also twice, as where a server packs what it sends
            raw = gzip.decompress(raw)
        if raw.startswith(PARQUET):
            import pyarrow
            from pyarrow import parquet

            return parquet.read_table(pyarrow.BufferReader(raw)).to_pylist(), None
        for magic, said in FOREIGN.items():
            if raw.startswith(magic):
                raise UserError(f"{name}: it is {said}; read are {ALLOWED}")
        if suffix == ".parquet":
            raise UserError(f"{name}: cannot be read (it is not Parquet)")
        text = _decoded(raw, path, name)
        if suffix in (".csv", ".tsv"):
            return _table_rows(text, "\t" if suffix == ".tsv" else ",", name)
    except UserError:
        raise
    except (OSError, EOFError, zlib.error, ValueError) as error:  # pyarrow's are ValueErrors
        raise UserError(f"{name}: cannot be read ({brief(error)})") from None
    return _json_rows(text, split, name)


def _decoded(raw: bytes, path: Path, name: str) -> str:
    encoding = json.detect_encoding(raw)
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        if not encoding.startswith("utf-8"):
            raise
        line = 1 + raw.count(b"\n", 0, error.start)
        raise UserError(
            f"{name}: cannot be read (line {line} is neither UTF-8 nor UTF-16); convert the file from what it is in: "
            f"iconv -f WINDOWS-1252 -t UTF-8 {path.name} > NEW{path.suffix}"
        ) from None


def _table_rows(text: str, delimiter: str, name: str) -> tuple[list[Row], list[int]]:
    csv.field_size_limit(LARGEST_CELL)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text, delimiter), strict=True)
    rows: list[Row] = []
    lines: list[int] = []
    line = 1
    try:
        if twice := _twice(column for column in reader.fieldnames or () if column):  # one of the two would be lost
            raise UserError(f"{name}: the header has {listed(twice)} twice")
        line = reader.line_num + 1
        for row in reader:
            if None in row:
                raise UserError(f"{name}: line {line} has more cells than the header has columns")
            rows.append(row)
            lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{name}: line {line} cannot be read ({brief(error)}); a cell with quotes stands in quotes, its own "
            "doubled"
        ) from None
    return rows, lines


def _delimiter(text: str, own: str) -> str:
    """What makes most known columns of the header: the suffix's own, unless it is another one."""

    def known(delimiter: str) -> int:
        start = io.StringIO(text[: 1 << 16], newline="")
        return len(KNOWN_COLUMNS & set(next(csv.reader(start, delimiter=delimiter), [])))

    return max((own, *DELIMITERS), key=known)


def _json_rows(text: str, split: str, name: str) -> tuple[list[Row], list[int] | None]:
    if "\r" in text:  # no JSON text has one inside
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    body = text.lstrip()
    if not body:
        return [], None
    start, _, rest = body.partition("\n")
    more = bool(rest) and not rest.isspace()
    one = not more or (not _is_json(start) and (body.startswith("[") or _is_json(text)))
    if one:  # document, in one line or over several
        number = 1 + text.count("\n", 0, len(text) - len(body))
        return _document(_parsed(text, None if more else number, name), number, split, name)
    values = [(n, _parsed(line, n, name)) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    rows = [(n, row) for n, value in values for row in (value if isinstance(value, list) else [value])]
    return [row for _, row in rows], [n for n, _ in rows]


def _document(value: Any, line: int, split: str, name: str) -> tuple[list[Row], list[int] | None]:
    """The rows of one JSON document: a list, a row, or an object of lists by split."""
    if isinstance(value, list):
        return value, None
    held = {k: v for k, v in value.items() if isinstance(v, list)} if isinstance(value, dict) else {}
    columns = [v for k, v in value.items() if k in KNOWN_COLUMNS] if isinstance(value, dict) else []
    if columns and all(
        (isinstance(v, list) and v and isinstance(v[0], str)) or (isinstance(v, dict) and "0" in v) for v in columns
    ):
        raise UserError(
            f"{name}: it holds columns; write rows, one JSON object each (pandas: orient='records', lines=True)"
        )
    by_split = any(isinstance(v[0], dict) for v in held.values() if v)
    if not by_split or KNOWN_COLUMNS & value.keys():
        return [value], [line]
    for key in (split, "data"):
        if key in held:
            return held[key], None
    raise UserError(f"{name}: no split {split!r} in it; there are {listed(held)}")


def _is_json(text: str) -> bool:
    with suppress(ValueError, RecursionError):
        json.loads(text)
        return True
    return False


def _parsed(text: str, line: int | None, name: str) -> Any:
    what = f"{name}: {'it' if line is None else f'line {line}'}"

    def unique(pairs: list[tuple[str, Any]]) -> Row:
        row = dict(pairs)
        if len(row) < len(pairs):  # of two values of one key the first would be lost
            raise UserError(f"{what} has the key {listed(_twice(key for key, _ in pairs))} twice in one object")
        return row

    try:
        return json.loads(text, object_pairs_hook=unique)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what} is not JSON ({brief(error)})") from None


def _twice(keys: Iterable[str]) -> list[str]:
    return [key for key, count in Counter(keys).items() if count > 1]


def _hub_rows(data: str, split: str, name: str) -> list[Row]:
    from datasets import load_dataset

    try:
        return load_dataset(data, split=split).to_list()
    except Exception as error:  # the hub's client, the network and a set's files fail in dozens of ways
        raise UserError(
            f"{name}, split {split!r}: neither a local file ({ALLOWED}) nor a data set to be had from the hub "
            f"({brief(error)})"
        ) from None


def listed(keys: Iterable[str]) -> str:
    """Names that a file gives, on one line, the first twenty."""
    names = [" ".join(key.encode(errors="backslashreplace").decode().split())[:40] for key in keys]
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
