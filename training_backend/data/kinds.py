"""What kind a file is, by its content first and its name second."""

from __future__ import annotations

import re
import zipfile

from training_backend.data.delimited import find_delimiter
from training_backend.data.json_rows import is_json_lines
from training_backend.data.source_file import SourceFile
from training_backend.errors import UserError

JSON = (".json", ".jsonl", ".ndjson")
DELIMITED = (".csv", ".tsv", ".tab")
TEXT = (".txt", ".md", ".markdown", ".rst")
TABULAR = (*JSON, *DELIMITED, ".parquet", ".xlsx", ".xlsm")
KNOWN = (*TABULAR, *TEXT)

_WEB_PAGE = re.compile(rb"\s*(<!doctype html|<html)", re.IGNORECASE)
_LFS = b"version https://git-lfs.github.com/spec/"
_FOREIGN = (  # how other kinds of file begin, what they are called and what to do
    (b"%PDF-", "a PDF", "Save its text as a text file."),
    (b"\xd0\xcf\x11\xe0", "an old Office file", "Save it as .xlsx, .csv or text."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it and choose a file in it."),
    (b"Rar!", "a RAR archive", "Unpack it and choose a file in it."),
    (b"BZh", "compressed with bzip2", "Unpack it and choose the result."),
    (b"\xfd7zXZ", "compressed with xz", "Unpack it and choose the result."),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "Unpack it and choose the result."),
    (b"SQLite format 3", "an SQLite database", "Export the table as CSV."),
    (b"ARROW1", "an Arrow file", "Save it as Parquet."),
    (b"Obj\x01", "an Avro file", "Save it as Parquet."),
    (b"ORC", "an ORC file", "Save it as Parquet."),
    (b"\x89PNG", "a picture", "Choose a file with text."),
    (b"\xff\xd8\xff", "a picture", "Choose a file with text."),
    (b"GGUF", "a model", "Choose it as a model, or choose a file with data."),
    (b"\x80\x04\x95", "a Python pickle, which could run programs", "Save the data as JSON lines."),
    (b"{\\rtf", "a rich-text file", "Save it as plain text."),
)


def plain_suffix(name: str) -> str:
    """The suffix in lower case, that of the unpacked file for `data.csv.gz`."""
    name = name.lower().removesuffix(".gz")
    return f".{name.rpartition('.')[2]}" if "." in name else ""


def find_binary_kind(file: SourceFile) -> str | None:
    """parquet or xlsx; None for what may be text. Raises `UserError` for any other known kind."""
    head, suffix = file.head, plain_suffix(file.path.name)
    if head.startswith(b"PAR1"):
        if file.compressed:
            raise _foreign(file, "a Parquet file packed with gzip", "Unpack it first.")
        return "parquet"
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(file)
    if head.startswith(_LFS):
        raise _foreign(
            file, "only a pointer to a file kept elsewhere (Git LFS)",
            "Run git lfs pull in its folder, or download the file itself.",
        )  # fmt: skip
    if _WEB_PAGE.match(head) and suffix not in (".md", ".markdown"):
        raise _foreign(
            file, "a web page, as a download without signing in gives",
            "Download the file again in a browser.",
        )  # fmt: skip
    for magic, what, remedy in _FOREIGN:
        if head.startswith(magic):
            raise _foreign(file, what, remedy)
    promised = {".parquet": "Parquet", ".xlsx": "Excel", ".xlsm": "Excel", ".xls": "Excel"}
    if suffix in promised:
        raise _foreign(
            file, f"no {promised[suffix]} file in spite of its name",
            "Download or save it again; if it holds text, rename it to .csv or .txt.",
        )  # fmt: skip
    return None


def find_text_kind(file: SourceFile, head: str) -> str:
    """jsonl, json, csv, text or markdown; notes a content that its name does not tell."""
    suffix = plain_suffix(file.path.name)
    start = head.lstrip()[:1]
    if suffix in (".md", ".markdown"):
        return "markdown"
    if suffix in JSON:
        kind = "jsonl" if is_json_lines(head, suffix) else "json"
        if suffix != ".json" and start == "[":
            _note_kind(file, "a JSON list rather than one object a line")
        return kind
    if start == "{" and is_json_lines(head, ".jsonl"):
        _note_kind(file, "JSON lines")
        return "jsonl"
    if start == "[" and re.match(r"\s*\[\s*\{\s*\"", head):
        _note_kind(file, "a JSON list")
        return "json"
    if suffix in DELIMITED:
        return "csv"
    return "text"


def delimiter_of(file: SourceFile, head: str) -> str:
    """The delimiter of a CSV file; noted when it is not the one that its name promises."""
    suffix = plain_suffix(file.path.name)
    delimiter = find_delimiter(head, suffix)
    if delimiter != ("," if suffix == ".csv" else "\t"):
        file.notes.add(
            "delimiter_guessed",
            "{name} separates its columns by {delimiter}; it was read so.",
            name=file.name,
            delimiter={";": "semicolons", "\t": "tabs", ",": "commas", "|": "vertical bars"}.get(
                delimiter, delimiter
            ),
        )
    return delimiter


def _note_kind(file: SourceFile, what: str) -> None:
    file.notes.add("kind_by_content", "{name} holds {what}; it was read as that.", name=file.name,
                   what=what)  # fmt: skip


def _zip_kind(file: SourceFile) -> str:
    try:
        with zipfile.ZipFile(file.path) as parts:
            names = parts.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        raise _foreign(
            file,
            "a ZIP or Excel file that is damaged or not complete",
            "Download or copy it again.",
        ) from None
    if "xl/workbook.xml" in names and not file.compressed:
        return "xlsx"
    if "word/document.xml" in names:
        raise _foreign(file, "a Word document", "Save it as plain text.")
    if "content.xml" in names:
        raise _foreign(file, "an OpenDocument file", "Save it as .xlsx, .csv or plain text.")
    inside = [name for name in names if not name.endswith("/")][:5]
    raise _foreign(
        file, f"a ZIP archive holding {', '.join(inside) or 'nothing'}",
        "Unpack it and choose a file in it.",
    )  # fmt: skip


def _foreign(file: SourceFile, what: str, remedy: str) -> UserError:
    return file.error("data_foreign_kind", "{name} is {what}.", remedy, what=what)
