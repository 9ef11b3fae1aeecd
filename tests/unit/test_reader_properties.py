"""Whatever rows are written, however they are written: the same rows are read."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training_backend.data import json_document, source_file
from training_backend.data.reader import Row, open_source
from training_backend.errors import UserError
from training_backend.job import SourceSection

files = settings(max_examples=80, suppress_health_check=list(HealthCheck))

# NUL is left out while reading, and a lone surrogate cannot be written as UTF-8.
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15)
    | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
# A first column that no wrapping has, so that a file of one row is not mistaken for one.
rows_of_json = st.lists(
    st.dictionaries(names, values, max_size=4).map(lambda row: {"instruction": "a", **row}),
    min_size=1,
    max_size=6,
)


def read(path: Path, **fields: Any) -> list[Row]:
    return list(open_source(SourceSection(path=str(path), **fields)).rows())


@files
@given(rows_of_json, st.booleans(), st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_json_lines(tmp_path: Path, rows: list[Row], is_ascii: bool, end: str) -> None:
    path = tmp_path / "data.jsonl"
    lines = (json.dumps(row, ensure_ascii=is_ascii) for row in rows)
    path.write_bytes("".join(line + end for line in lines).encode())
    assert read(path) == rows


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that every value lies across the border of two chunks somewhere."""
    monkeypatch.setattr(json_document, "_CHUNK", 3)


@files
@given(rows_of_json, st.sampled_from([None, 1]), st.booleans())
def test_a_document_read_in_tiny_pieces(
    small_chunks: None, tmp_path: Path, rows: list[Row], indent: int | None, is_wrapped: bool
) -> None:
    path = tmp_path / "data.json"
    document = {"n": 12, "list": ["a"], "data": rows, "end": -1.5e3} if is_wrapped else rows
    path.write_text(json.dumps(document, indent=indent))
    assert read(path) == rows


@files
@given(rows_of_json, st.data())
def test_a_document_that_is_cut_anywhere_is_said_to_break_off(
    small_chunks: None, tmp_path: Path, rows: list[Row], data: st.DataObject
) -> None:
    path = tmp_path / "data.json"
    document = json.dumps(rows)
    path.write_text(document[: data.draw(st.integers(2, len(document) - 1))])
    with pytest.raises(UserError) as caught:
        read(path)
    assert "breaks off" in str(caught.value)


@files
@given(rows_of_json, st.data())
def test_a_last_line_that_is_cut_anywhere_is_left_out(
    tmp_path: Path, rows: list[Row], data: st.DataObject
) -> None:
    path = tmp_path / "data.jsonl"
    last = json.dumps(rows[-1])
    cut = last[: data.draw(st.integers(1, len(last) - 1))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + cut)
    assert read(path) == rows


@files
@given(
    st.lists(st.lists(text, min_size=2, max_size=2).filter(any), min_size=1, max_size=6),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_delimited_text(
    tmp_path: Path, cells: list[list[str]], delimiter: str, encoding: str, end: str
) -> None:
    path = tmp_path / "data.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
        writer.writerow(["first", "second"])
        writer.writerows(cells)
    rows = read(path, delimiter=delimiter)
    assert rows == [{"first": first, "second": second} for first, second in cells]


punctuation = st.sampled_from([*'[]{}",:;\n\r\t \\', "1", "a", "\ufeff", "é", '{"a":1}\n'])
contents = st.binary(max_size=400) | st.lists(punctuation, max_size=60).map(
    lambda parts: "".join(parts).encode()
)
file_names = st.sampled_from(
    ["data.jsonl", "data.json", "data.csv", "data.txt", "data.parquet", "data.xlsx", "data"]
)


@settings(files, max_examples=400)
@given(contents, file_names)
def test_any_content_is_read_or_refused_by_name(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    try:
        read(path)
    except UserError as error:
        refusal = error
    else:
        return
    assert refusal.remedy and name in str(refusal)


def test_stray_bytes_are_found_behind_the_head(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes(b"word " * 300_000 + "é".encode("latin-1") + b" word" * 100_000)
    assert path.stat().st_size > source_file.HEAD_BYTES
    assert sum(row["text"].count("é") for row in read(path)) == 1
