"""Which encoding a text file is in, found out from its first bytes."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

from training_backend.errors import UserError

if TYPE_CHECKING:
    from training_backend.data.source_file import SourceFile

_MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# What files are in that are not Unicode. Left to itself the detector names rarer ones too,
# which the first few kilobytes cannot prove.
_LEGACY = (
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r",
    "cp932", "euc_jp", "gb18030", "big5", "cp949",
)  # fmt: skip
_CONTROLS = bytes({*range(32)} - {*b"\t\n\v\f\r\x1a\x1b"})
_DETECTED_BYTES = 64 * 1024  # the detector takes about a second for each megabyte


def known_encoding(name: str) -> str:
    """The encoding that the person named. Raises `UserError` for one Python does not know."""
    try:
        info = codecs.lookup(name)
        "".encode(name)  # refuses those that are no text encodings, such as base64
    except (LookupError, ValueError):
        info = None
    # These run over the whole text at once or execute escapes: no way to store a text.
    if info is None or info.name in ("idna", "punycode", "undefined", "unicode-escape"):
        raise UserError(
            "encoding_unknown",
            "There is no encoding named {encoding}.",
            "Usual ones are utf-8, utf-16, cp1252 and latin-1.",
            field="dataset.encoding",
            encoding=name,
        )
    return "utf-8-sig" if info.name == "utf-8" else info.name


def find_encoding(file: SourceFile) -> str:
    """The encoding of a file; notes whatever is not plain UTF-8.

    Raises `UserError` when the bytes are no text in any.
    """
    head = file.head
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            if encoding == "utf-8-sig":
                message = "{name} begins with a byte order mark, which was left out."
            else:
                message = "{name} is in {encoding}; it was read as that."
            file.notes.add("byte_order_mark", message, name=file.name, encoding=encoding.upper())
            return encoding
    wide = _wide(head)
    if wide:
        _note_guess(file, wide)
        return wide
    if _is_binary(head):
        raise file.error(
            "data_binary",
            "{name} is not a text file.",
            "Choose JSON, JSONL, CSV, Parquet, Excel, text or Markdown.",
        )
    if _is_utf8(head, file.is_whole):
        return "utf-8"
    encoding = _legacy(head[:_DETECTED_BYTES])
    _note_guess(file, encoding)
    return encoding


def _note_guess(file: SourceFile, encoding: str) -> None:
    file.notes.add(
        "encoding_guessed",
        "{name} is not in UTF-8; it was read as {encoding}. Choose another encoding if letters "
        "look wrong.",
        name=file.name,
        encoding=encoding,
    )


def _is_binary(head: bytes) -> bool:
    """Whether more than a stray byte in fifty is a control code that no text has."""
    content = head.rstrip(b"\0")  # a crash leaves those at the end of a file
    n_controls = len(content) - len(content.translate(None, _CONTROLS))
    return n_controls > 16 and n_controls > len(content) // 50


def _wide(head: bytes) -> str | None:
    """UTF-16 without a mark: every second byte of Latin text is zero."""
    even, odd = head[0:4096:2], head[1:4096:2]
    if len(odd) < 2:
        return None
    for half, other, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if half.count(0) > 0.4 * len(half) and other.count(0) < 0.02 * len(other) + 1:
            return encoding
    return None


def _is_utf8(head: bytes, is_whole: bool) -> bool:
    """Whether it is UTF-8, but for a few stray bytes that are less than what is right."""
    text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(head, is_whole)
    if text.isascii():
        return True
    stray = sum("\udc80" <= letter <= "\udcff" for letter in text)
    return stray == 0 or stray < sum(letter > "\x7f" for letter in text) - stray


def _legacy(head: bytes) -> str:
    """The likeliest of the old encodings; Windows-1252 if nothing is likelier."""
    import charset_normalizer

    # A byte cut in two at the end must not rule out an encoding: end at a line.
    head = head[: head.rfind(b"\n") + 1] or head
    matches = charset_normalizer.from_bytes(head, cp_isolation=list(_LEGACY))
    best = matches.best()
    if best is None:
        return "cp1252" if _decodes(head, "cp1252") else "latin-1"
    for match in matches:
        is_as_good = (match.chaos, match.coherence) == (best.chaos, best.coherence)
        if is_as_good and "cp1252" in (match.encoding, *match.could_be_from_charset):
            return "cp1252"
    return best.encoding


def _decodes(head: bytes, encoding: str) -> bool:
    try:
        head.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
