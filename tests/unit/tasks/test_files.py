"""Files as people have them: what is read alike under every name and encoding, and what is refused in one line."""

import codecs
import gzip
import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pyarrow
import pytest
from pyarrow import parquet

from r2m.errors import UserError
from r2m.tasks.files import read_rows

ROWS = [{"prompt": "a", "completion": " b"}, {"prompt": "ç", "completion": ' d\ne, "f"'}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
CSV = 'prompt,completion\r\na, b\r\nç," d\ne, ""f"""\r\n'
gzipped = partial(gzip.compress, mtime=0)  # the time would be in the names of tests


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", LINES.encode()),
        ("rows.jsonl", LINES.replace("\n", "\n\n").encode()),
        ("rows.json", LINES.encode()),
        ("rows.json", json.dumps(ROWS, indent=1).encode()),
        ("rows.jsonl.gz", gzipped(LINES.encode())),
        ("rows.json.gz", gzipped(json.dumps(ROWS).encode())),
        ("rows.JSONL", LINES.encode()),
        ("rows.JSON.GZ", gzipped(json.dumps(ROWS).encode())),
        ("rows.ndjson", LINES.encode()),
        ("rows.jsonl", LINES.replace("\n", "\r\n").encode()),
        ("rows.jsonl", codecs.BOM_UTF8 + LINES.encode()),
        ("rows.json", codecs.BOM_UTF8 + json.dumps(ROWS).encode()),
        ("rows.jsonl", LINES.encode("utf-16")),
        ("rows.jsonl", codecs.BOM_UTF16_BE + LINES.encode("utf-16-be")),
        ("rows.jsonl", LINES.encode("utf-16-le")),
        ("rows.jsonl", gzipped(LINES.encode())),
        ("rows.jsonl.gz", LINES.encode()),
        ("rows.json", json.dumps({"train": ROWS, "test": [{"prompt": "z"}]}).encode()),
        ("rows.json", json.dumps({"test": [{"prompt": "z"}], "train": ROWS}, indent=2).encode()),
        ("rows.json", json.dumps({"version": 1, "data": ROWS}).encode()),
        ("rows.jsonl", "\n".join(json.dumps([row]) for row in ROWS).encode()),
        ("rows.csv", CSV.encode()),
        ("rows.CSV", codecs.BOM_UTF8 + CSV.encode()),
        ("rows.csv.gz", gzipped(CSV.encode("utf-16"))),
        ("rows.tsv", CSV.replace(",", "\t").replace("e\t", "e,").encode()),
        ("rows.csv", CSV.replace(",", ";").replace("e;", "e,").encode()),
        ("rows.csv", CSV.replace(",", "\t").replace("e\t", "e,").encode()),
        ("rows.tsv", CSV.encode()),
        ("rows.jsonl", LINES.replace("\n", "\r").encode()),
        ("rows.jsonl.gz", gzipped(gzipped(LINES.encode()))),
    ],
)
def test_local_json(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_rows(str(tmp_path / name)) == ROWS


def test_a_line_separator_inside_a_text_is_not_a_new_row(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a\u2028b"}\n')
    assert read_rows(str(tmp_path / "rows.jsonl")) == [{"prompt": "a\u2028b"}]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.PARQUET", "rows.json"])
def test_local_parquet(tmp_path: Path, name: str) -> None:
    rows = [{"prompt": "a", "chosen": [{"role": "user", "content": "a"}]}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name)
    assert read_rows(str(tmp_path / name)) == rows


def test_parquet_in_gzip(tmp_path: Path) -> None:
    table = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), table)
    (tmp_path / "rows.parquet.gz").write_bytes(gzipped(table.getvalue()))
    assert read_rows(str(tmp_path / "rows.parquet.gz")) == ROWS


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    long = "x" * 200_000
    (tmp_path / "rows.csv").write_text(f"prompt,completion\na,{long}\n")
    assert read_rows(str(tmp_path / "rows.csv")) == [{"prompt": "a", "completion": long}]


def test_the_split_of_an_object_of_splits(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"train": ROWS, "test": [{"prompt": "z"}]}))
    assert read_rows(str(path), split="test") == [{"prompt": "z"}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "completion": "b"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"question": "a", "tags": ["x"]},
    ],
)
def test_a_lone_row_is_no_object_of_splits(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    rows = read_rows(str(tmp_path / "rows.jsonl"))
    assert (rows, rows.place(0)) == ([row], "line 1")


@pytest.mark.parametrize(
    ("name", "content", "places"),
    [
        ("rows.jsonl", "\n" + LINES.replace("\n", "\n\n"), ["line 2", "line 4"]),
        ("rows.json", json.dumps(ROWS), ["row 0", "row 1"]),
        ("rows.csv", CSV.replace("a, b", '"a\na", b'), ["line 2", "line 4"]),
    ],
)
def test_rows_know_their_place(tmp_path: Path, name: str, content: str, places: list[str]) -> None:
    (tmp_path / name).write_text(content, newline="")
    rows = read_rows(str(tmp_path / name))
    assert [rows.place(i) for i in range(len(rows))] == places


def test_the_first_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(LINES)
    assert read_rows(str(tmp_path / "rows.jsonl"), limit=1) == ROWS[:1]
    assert read_rows(str(tmp_path / "rows.jsonl"), limit=3) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", None, "no such file"),
        ("rows.jsonl", b"", "no rows"),
        ("rows.json", b"[]", "no rows"),
        ("rows.jsonl", LINES.encode() + b'{"prompt": "e"\n', "line 3 is not JSON"),
        ("rows.jsonl", b'{"prompt": "e"\n' + LINES.encode(), "line 1 is not JSON"),
        ("rows.jsonl", LINES.encode() + b'"e"\n', "line 3 is a str"),
        ("rows.json", b'[{"prompt": "a"}, 3]', "row 1 is a int"),
        ("rows.json", b"3", "line 1 is a int"),
        ("rows.json", b'[{"prompt": "a"},\n{"prompt": ]', "it is not JSON .*line 2"),
        ("rows.json", b"[" * 100_000, "is not JSON"),
        ("rows.json", b'{"dev": [{"prompt": "a"}], "test": []}', "no split 'train' in it; there are dev, test"),
        ("rows.jsonl", b"\xff\xfe\n", "cannot be read"),
        ("rows.jsonl.gz", gzipped(LINES.encode())[:-9], "cannot be read"),
        ("rows.parquet", LINES.encode(), "cannot be read"),
        ("rows.txt", b"a\n", r"a local file must end in \.jsonl, \.ndjson, \.json, \.csv, "),
        ("rows", LINES.encode(), r"a local file must end in \.jsonl, "),
        ("rows.csv", b"", "no rows"),
        ("rows.csv", b"prompt,chosen\n", "no rows"),
        ("rows.csv", b"prompt\na\nb,c\n", "line 3 has more cells than the header has columns"),
        ("rows.csv", b'prompt\n"a\n', "cannot be read"),
        ("rows.csv", "prompt\né\n".encode("latin-1"), "cannot be read"),
        ("rows.jsonl.zst", b"\x28\xb5\x2f\xfd...", "must end in"),
        ("rows.jsonl", b"\x28\xb5\x2f\xfd...", "it is Zstandard: unpack it"),
        ("rows.csv", b"PK\x03\x04...", "it is a zip archive or a spreadsheet: unpack it, or export it as CSV"),
        ("rows.jsonl", b'{"prompt": "a"}\n{"prompt": "caf\xe9"}\n', "line 2 is neither UTF-8 nor UTF-16.*iconv"),
        ("rows.jsonl", b'{"prompt": "a"}\n{"a": {"b": 1, "b": 2}}\n', "line 2 has the key b twice"),
        ("rows.csv", b"prompt,chosen,chosen\na,b,c\n", "the header has chosen twice"),
        ("rows.csv", b'prompt,chosen\na,b\nc,"d\n', "line 3 cannot be read"),
        ("rows.json", b'{"prompt": ["a", "b"], "chosen": ["c", "d"]}', "it holds columns"),
        ("rows.json", b'{"prompt": {"0": "a"}, "chosen": {"0": "c"}}', "it holds columns"),
        ("rows.parquet", b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
    ],
)
def test_unusable_files_are_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_rows(str(path), field="--data")
    assert str(caught.value).startswith(f"--data = {str(path)!r}: ")
    assert "\n" not in str(caught.value)


def test_an_unreachable_data_set_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = r"task\.data = 'nobody/nothing', split 'test': neither a local file"
    with pytest.raises(UserError, match=message) as caught:
        read_rows("nobody/nothing", split="test")
    assert "\n" not in str(caught.value)
