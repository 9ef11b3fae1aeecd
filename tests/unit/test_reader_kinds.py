"""Sound files of every kind: what is found out about them, their rows, their count."""

from __future__ import annotations

import csv
import datetime
import gzip
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from training_backend.data.reader import Row, Table, open_source, read_rows, resolve_dataset
from training_backend.errors import StopRequested, UserError
from training_backend.job import SourceSection

REPOSITORY = Path(__file__).parents[2]
ROWS: list[Row] = [
    {"instruction": "What is ä?", "output": "A letter;\nof its own, “yes”"},
    {"instruction": "Tabs\tand | bars", "output": "007"},
    {"instruction": "", "output": " spaces "},
]


def opened(path: Path | str, **fields: Any) -> Table:
    return open_source(SourceSection(path=str(path), **fields))


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def write_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS, indent=2))


def write_wrapped(path: Path) -> None:
    path.write_text(json.dumps({"version": "1.0", "info": {"n": 3}, "data": ROWS}))


def write_csv(path: Path, delimiter: str = ",", encoding: str = "utf-8") -> None:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)


def write_parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path, row_group_size=2)


def write_xlsx(path: Path) -> None:
    book = openpyxl.Workbook()
    for row in [list(ROWS[0]), *(list(row.values()) for row in ROWS)]:
        book.active.append(row)
    book.save(path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "data.jsonl": write_jsonl,
    "data.ndjson": write_jsonl,
    "data.json": write_json,
    "wrapped.json": write_wrapped,
    "data.csv": write_csv,
    "data.tsv": lambda path: write_csv(path, "\t"),
    "semicolon.csv": lambda path: write_csv(path, ";"),
    "windows.csv": lambda path: write_csv(path, ";", "cp1252"),
    "wide.csv": lambda path: write_csv(path, "\t", "utf-16"),
    "data.parquet": write_parquet,
    "data.xlsx": write_xlsx,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    table = opened(path)
    rows = [{key: value or "" for key, value in row.items()} for row in table.rows()]
    assert rows == ROWS
    assert table.columns == ("instruction", "output")
    assert table.count() == 3 and table.details.size_bytes == path.stat().st_size


@pytest.mark.parametrize("name", WRITERS)
def test_rows_can_be_read_from_anywhere(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    table = opened(path)
    everything = list(table.rows())
    assert list(table.rows(1)) == everything[1:]
    assert list(table.rows(1, 1)) == everything[1:2]
    assert list(table.rows(2, 10)) == everything[2:]
    assert list(table.rows(3)) == []


def test_what_was_found_out_is_told_and_can_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes("a;b,c;d\nKäse;x,y;z\n".encode("cp1250"))
    found = opened(path).details
    assert (found.kind, found.encoding, found.delimiter) == ("csv", "cp1252", ";")
    changed = opened(path, encoding="cp1251", delimiter=",")
    assert changed.columns == ("a;b", "c;d")
    assert list(changed.rows()) == [{"a;b": "Kдse;x", "c;d": "y;z"}]
    assert changed.notices == ()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"encoding": "utf-99"}, "dataset.encoding"),
        ({"encoding": "base64"}, "dataset.encoding"),
        ({"encoding": "utf-8"}, "dataset.encoding"),
        ({"delimiter": '"'}, "dataset.delimiter"),
    ],
)
def test_a_choice_that_cannot_be_is_refused_beside_its_field(
    tmp_path: Path, fields: dict[str, str], field: str
) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes("a,b\n1,2\nKäse,x\n".encode("latin-1"))
    with pytest.raises(UserError) as caught:
        list(opened(path, **fields).rows())
    assert caught.value.field == field
    if fields == {"encoding": "utf-8"}:
        assert "data.csv, line 3" in caught.value.message


def test_a_file_packed_with_gzip_is_read_as_the_file_in_it(tmp_path: Path) -> None:
    path = tmp_path / "data.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n1,2\n"))
    table = opened(path)
    assert list(table.rows()) == [{"a": "1", "b": "2"}]
    assert table.details.compressed and table.notices == ()


def test_a_text_is_a_table_once_a_delimiter_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    path.write_text("a|b\n1|2\n")
    assert list(opened(path).rows()) == [{"text": "a|b\n1|2\n"}]
    assert list(opened(path, delimiter="|").rows()) == [{"a": "1", "b": "2"}]


# -------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    "document",
    [
        {"data": ROWS},
        {"data": ROWS, "version": 2, "info": {"authors": [{"name": "x"}]}},
        {"result": {"items": ROWS}},
        {"meta": {"tags": ["a", "b"]}, "columns": ["x"], "rows": ROWS, "n": 1.5, "ok": True},
        {"instruction": [row["instruction"] for row in ROWS], "output": ["a", "b", "c"]},
    ],
)
def test_the_list_of_rows_is_found_in_a_document(tmp_path: Path, document: Any) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(document))
    assert [row["instruction"] for row in opened(path).rows()] == [
        row["instruction"] for row in ROWS
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "a"}], "tools": [{"name": "f"}]},
        {"tools": [{"name": "f"}], "messages": [{"role": "user", "content": "a"}]},
        {"instruction": "a", "output": "b", "sources": [{"url": "c"}]},
        {"conversations": [{"from": "human", "value": "a"}]},
        {"text": "a", "tags": ["b", "c"]},
    ],
)
def test_a_document_that_is_one_row_stays_one_row(tmp_path: Path, row: Row) -> None:
    for name, indent in (("a.json", None), ("b.json", 1), ("c.jsonl", None)):
        path = tmp_path / name
        path.write_text(json.dumps(row, indent=indent))
        assert list(opened(path).rows()) == [row]


def test_another_list_of_a_document_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps({"train": ROWS[:1], "test": ROWS[1:]}))
    table = opened(path)
    assert list(table.rows()) == ROWS[:1]
    assert "test" in str(table.notices[0])
    assert list(opened(path, subset="test").rows()) == ROWS[1:]
    with pytest.raises(UserError, match="no list named other"):
        opened(path, subset="other")


def test_a_mistake_far_inside_a_large_document_is_found_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    lines = [json.dumps({"n": number, "text": "word " * 50}) for number in range(20_000)]
    lines[15_000] = '{"n": 15000, "text": oops}'
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    rows = opened(path).rows()
    assert [row["n"] for row in itertools.islice(rows, 15_000)] == list(range(15_000))
    with pytest.raises(UserError, match="line 15002: not valid JSON"):
        next(rows)


# ------------------------------------------------------------------------- other kinds of file


def test_a_short_text_is_one_row_and_a_long_one_is_cut_at_paragraphs(tmp_path: Path) -> None:
    short, long = tmp_path / "a.md", tmp_path / "b.txt"
    short.write_text("# Title\n\nText.\n")
    text = "".join(f"Paragraph {n} " + "word " * 200 + "\n\n" for n in range(3000))
    long.write_text(text)
    assert list(opened(short).rows()) == [{"text": "# Title\n\nText.\n"}]
    assert opened(short).details.kind == "markdown"
    rows = list(opened(long).rows())
    assert len(rows) > 5 and "".join(row["text"] for row in rows) == text
    assert all(row["text"].startswith("Paragraph") for row in rows)


def test_a_sheet_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    book = openpyxl.Workbook()
    book.active.title = "Cover"
    book.active.append(["Quarterly report"])
    for title in ("One", "Two"):
        sheet = book.create_sheet(title)
        sheet.append(["text", "day", "n"])
        sheet.append([title, datetime.date(2024, 5, 1), 3])
    book.save(path)
    assert opened(path).details.sheet == "One"
    assert opened(path).details.sheets == ("Cover", "One", "Two")
    (row,) = opened(path, sheet="Two").rows()
    assert row == {"text": "Two", "day": "2024-05-01T00:00:00", "n": 3}
    with pytest.raises(UserError, match="Choose one of: Cover, One, Two") as caught:
        opened(path, sheet="Three")
    assert caught.value.field == "dataset.sheet"


def test_values_of_a_parquet_file_are_those_of_json(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    row = {
        "messages": [{"role": "user", "content": None}],
        "day": datetime.datetime(2024, 5, 1, 12, 30),
        "score": float("nan"),
        "picture": b"\x89PNG",
    }
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    table = opened(path)
    assert list(table.rows()) == [
        {"messages": [{"role": "user", "content": None}], "day": "2024-05-01T12:30:00",
         "score": None, "picture": None}
    ]  # fmt: skip
    assert "picture" in str(table.notices[0])
    json.dumps(list(table.rows()))


# ----------------------------------------------------------------------------------- folders


def test_a_folder_gives_the_rows_of_its_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write_csv(tmp_path / "a.csv")
    write_parquet(tmp_path / "b.parquet")
    write_jsonl(tmp_path / "deep" / "c.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "README.md").write_text("# About")
    (tmp_path / ".hidden.jsonl").write_text("{]")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    table = opened(tmp_path)
    assert list(table.rows()) == ROWS * 3 and table.count() == 9
    assert list(table.rows(4)) == (ROWS * 3)[4:] and list(table.rows(7, 1)) == [ROWS[1]]
    assert [Path(name).name for name in table.details.files] == [
        "a.csv", "b.parquet", "empty.jsonl", "c.jsonl",
    ]  # fmt: skip
    assert {notice.code for notice in table.notices} == {"texts_left_out", "empty_file"}


def test_a_folder_of_texts_gives_each_as_a_row(tmp_path: Path) -> None:
    for name in ("b.md", "a.txt"):
        (tmp_path / name).write_text(name)
    assert list(opened(tmp_path).rows()) == [{"text": "a.txt"}, {"text": "b.md"}]


def test_only_the_files_of_the_split_are_read(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name}))
    table = opened(tmp_path)
    assert table.count() == 2 and table.details.splits == ("test", "train")
    assert list(opened(tmp_path, split="test").rows()) == [{"text": "test-00000-of-00001"}]
    with pytest.raises(UserError, match="Choose one of: test, train") as caught:
        opened(tmp_path, split="validation")
    assert caught.value.field == "dataset.split"


def test_a_bad_file_in_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write_jsonl(tmp_path / "a.jsonl")
    (tmp_path / "deep" / "b.jsonl").write_text('{"text": "a"}\n{"text": b}\n')
    with pytest.raises(UserError, match=r"deep.b\.jsonl, line 2: not valid JSON"):
        opened(tmp_path).count()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_text_is_shown_without_its_stray_bytes(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jsonl")).write_text("{]\n")
    with pytest.raises(UserError, match=r"caf\?\.jsonl, line 1"):
        opened(tmp_path)


def test_a_folder_without_data_says_what_it_looks_for(tmp_path: Path) -> None:
    (tmp_path / "notes.docx").write_text("")
    with pytest.raises(UserError, match="holds no data file") as caught:
        opened(tmp_path)
    assert "JSON, JSONL, CSV" in caught.value.remedy


# --------------------------------------------------------------------- counting, and the rest


def test_counting_reports_progress_and_can_be_stopped(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "some words to make it longer"}\n' * 50_000)
    table = opened(path)
    seen: list[tuple[int, float]] = []
    assert table.count(lambda rows, share: seen.append((rows, share))) == 50_000
    assert seen == sorted(seen) and seen[0][1] < 0.5 and seen[-1] == (50_000, 1.0)
    with pytest.raises(StopRequested):
        table.count(should_stop=lambda: True)


def test_the_first_rows_are_read_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    with path.open("w") as file:
        file.write('{"text": "good"}\n' * 100_000)
        file.write("bad\n")
    assert len(list(opened(path).rows(limit=50))) == 50


def test_the_old_conveniences_stay(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    write_jsonl(path)
    assert resolve_dataset(str(path)) == path
    assert read_rows(path) == ROWS and read_rows(path, 2) == ROWS[:2]
    assert read_rows(resolve_dataset("demo"), 1)[0]
    assert opened("demo").details.kind == "jsonl"
    for wrong in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(UserError):
            resolve_dataset(str(wrong))


def test_the_reader_imports_no_heavy_library() -> None:
    program = (
        "import sys; import training_backend.data.reader; heavy = {'pandas', 'pyarrow', 'numpy', "
        "'datasets', 'openpyxl', 'torch', 'huggingface_hub', 'charset_normalizer'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
