"""Rows from files as people have them, and the place of what is wrong with them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from training_backend.data.reader import DEMO, read_rows, resolve_dataset
from training_backend.errors import UserError

ROWS: list[dict[str, Any]] = [{"text": "eins"}, {"text": "zwei: ü 👋\u2028"}, {"text": "three"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def failure(path: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        read_rows(path)
    assert caught.value.field == "dataset.path"
    assert path.name in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(ROWS)),
        ("a.json", json.dumps(ROWS, indent=2)),
        ("a.json", json.dumps({"data": ROWS})),
        ("a.json", json.dumps({"version": "1", "train": ROWS, "note": None, "tags": ["a"]})),
        ("a.JSON", json.dumps(ROWS)),
        ("a.json", LINES),
        ("a.json", "\n\n" + LINES),
        ("a.jsonl", LINES),
        ("a.ndjson", LINES),
        ("a.txt", LINES),
        ("no-ending", LINES),
        ("a.jsonl", LINES.rstrip("\n")),
        ("a.jsonl", LINES.replace("\n", "\r\n")),
        ("a.jsonl", "\n" + LINES.replace("\n", "\n  \n\n")),
        ("a.jsonl", "\ufeff" + LINES),
        ("a.json", "\ufeff" + json.dumps(ROWS)),
        ("a.json", "\ufeff" + LINES),
    ],
)
def test_every_known_form_gives_the_same_rows(tmp_path: Path, name: str, content: str) -> None:
    assert read_rows(write(tmp_path / name, content)) == ROWS


@pytest.mark.parametrize("key", ["conversations", "messages"])
def test_a_file_that_is_one_row_is_one_row(tmp_path: Path, key: str) -> None:
    row = {key: [{"from": "human", "value": "a"}, {"role": "assistant", "content": "b"}]}
    assert read_rows(write(tmp_path / "a.json", json.dumps(row))) == [row]
    assert read_rows(write(tmp_path / "b.json", json.dumps(row, indent=1))) == [row]


def test_of_two_tables_in_an_object_the_first_is_read(tmp_path: Path) -> None:
    document = {"train": ROWS, "test": ROWS[:1]}
    assert read_rows(write(tmp_path / "a.json", json.dumps(document))) == ROWS


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_limit_gives_the_first_rows(tmp_path: Path, name: str) -> None:
    content = LINES if name.endswith("l") else json.dumps(ROWS)
    assert read_rows(write(tmp_path / name, content), limit=2) == ROWS[:2]
    assert read_rows(tmp_path / name, limit=100) == ROWS


def test_a_limit_does_not_read_on(tmp_path: Path) -> None:
    assert read_rows(write(tmp_path / "a.jsonl", LINES + "{bad"), limit=3) == ROWS


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff", "[]"])
def test_a_file_without_rows_is_said_to_be_empty(tmp_path: Path, content: str) -> None:
    assert failure(write(tmp_path / "a.json", content)).code == "data_empty"
    if content != "[]":
        assert failure(write(tmp_path / "a.jsonl", content)).code == "data_empty"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_other_encodings_are_found_out(tmp_path: Path, name: str, encoding: str) -> None:
    content = '{"text": "café"}\n{"text": "naïve"}\n'.encode(encoding)
    assert read_rows(write(tmp_path / name, content)) == [{"text": "café"}, {"text": "naïve"}]


@pytest.mark.parametrize(
    ("content", "code"),
    [(LINES.encode("utf-32-be"), "data_binary"), (b"\x1f\x8b\x08\x00\xff", "data_gzip_damaged")],
)
def test_what_is_no_text_is_said_to_be_none(tmp_path: Path, content: bytes, code: str) -> None:
    assert failure(write(tmp_path / "a.jsonl", content)).code == code


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.jsonl", '{"a": 1}\n\n{"a": }\n{"a": 2}', 3),
        ("a.jsonl", '{"a": 1}\r\n{"a": 2} {"a": 3}\r\n', 2),
        ("a.jsonl", '{"a": 1}\n{"a": "cut\n', 2),
        ("a.jsonl", "not json", 1),
        ("a.json", '[\n{"a": 1},\n{"a": }\n]', 3),
        ("a.json", '[{"a": 1},\n{"a": 2}', 2),
        ("a.json", '{"a": 1}\n{"a": 2}\n{"a": }\n', 3),
        ("a.json", '[\n{"a": 1}\n]\n]', 4),
        ("a.json", '{\n"a": 1\n}\n{\n"a" 2\n}', 5),
    ],
)
def test_malformed_json_is_told_with_its_line(
    tmp_path: Path, name: str, content: str, line: int
) -> None:
    error = failure(write(tmp_path / name, content))
    assert (error.code, error.params["line"]) == ("data_bad_json", line)
    assert f"line {line}: not valid JSON" in str(error)


@pytest.mark.parametrize(
    ("bad", "code"), [("1" * 5_000, "number_too_long"), ("[" * 100_000, "nested_too_deep")]
)
def test_json_that_python_refuses_is_told_with_its_line(
    tmp_path: Path, bad: str, code: str
) -> None:
    assert failure(write(tmp_path / "a.json", bad)).code == code
    error = failure(write(tmp_path / "a.jsonl", '{"a": 1}\n' + bad + "\n"))
    assert (error.code, "line 2" in str(error)) == (code, True)


@pytest.mark.parametrize("value", ["5", '"text"', "true", "null", "1.5", "NaN"])
def test_a_row_that_is_no_object_is_told_with_its_place(tmp_path: Path, value: str) -> None:
    assert failure(write(tmp_path / "a.json", value)).params["place"] == "row 1"
    error = failure(write(tmp_path / "a.json", f'[{{"a": 1}}, {value}]'))
    assert (error.code, error.params["place"]) == ("row_not_object", "row 2")
    error = failure(write(tmp_path / "a.jsonl", f'\n{{"a": 1}}\n{value}\n'))
    assert (error.code, error.params["place"]) == ("row_not_object", "line 3")


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a file without rights readable")
def test_a_file_that_cannot_be_opened_is_told_with_the_reason(tmp_path: Path) -> None:
    loop = tmp_path / "loop.jsonl"
    loop.symlink_to(loop)
    assert failure(loop).code == "data_link_loop"


# --------------------------------------------------------------------------------- which file


def refused(path: str) -> str:
    with pytest.raises(UserError) as caught:
        resolve_dataset(path)
    assert caught.value.field == "dataset.path"
    return caught.value.code


def test_the_demo_is_the_bundled_file() -> None:
    rows = read_rows(resolve_dataset(DEMO))
    assert len(rows) >= 200
    assert all(row.keys() == {"messages"} for row in rows)


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    assert refused(str(tmp_path)) == "data_is_folder"
    assert refused(str(tmp_path / "none.jsonl")) == "data_missing"
    file = write(tmp_path / "a.jsonl", LINES)
    assert resolve_dataset(str(file)) == file
    assert refused(str(file / "below")) == "data_missing"


@pytest.mark.parametrize("path", ["x" * 10_000, "~nobody-here/rows", "a\0b", "", "{braces}"])
def test_a_path_that_cannot_be_is_missing(path: str) -> None:
    assert refused(path) == "data_missing"


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    file = write(tmp_path / "a.jsonl", LINES)
    assert resolve_dataset("~/a.jsonl") == file
