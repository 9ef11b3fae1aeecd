"""Makes the bad data files that are too large, or too odd, to be kept in the repository.

python tests/assets/bad_data/make_large.py FOLDER
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path

ROW = '{"instruction": "Question", "output": "Answer"}\n'


def long_line(folder: Path) -> Path:
    """JSON lines, the second of which has 30 MB."""
    path = folder / "long_line.jsonl"
    path.write_text(ROW + json.dumps({"instruction": "word " * 6_000_000, "output": "a"}) + "\n")
    return path


def long_first_line(folder: Path) -> Path:
    """30 MB without a line end, and no list that could be taken apart."""
    path = folder / "long_first_line.json"
    path.write_text(json.dumps({"instruction": "word " * 6_000_000, "output": "a"}))
    return path


def blank_inside(folder: Path) -> Path:
    """A JSON list that begins, and then 20 MB of blanks before the file ends."""
    path = folder / "blank_inside.json"
    path.write_text('{"data": [' + " " * 20_000_000)
    return path


def long_quote(folder: Path) -> Path:
    """A CSV file whose first quote is never closed, over 20 MB."""
    path = folder / "long_quote.csv"
    path.write_text('instruction,output\na,b\n"never closed,c\n' + "question,answer\n" * 1_300_000)
    return path


def no_line_end(folder: Path) -> Path:
    """A CSV file of 20 MB without a line end."""
    path = folder / "no_line_end.csv"
    path.write_text("instruction,output," * 1_100_000)
    return path


def bomb(folder: Path) -> Path:
    """A gzip file of 300 kB that unpacks to 300 MB without a line end."""
    path = folder / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(ROW.encode())
        for _ in range(300):
            file.write(b" " * 1_000_000)
    return path


def many_rows(folder: Path) -> Path:
    """500,000 rows, of which one in the last tenth is not JSON."""
    path = folder / "many_rows.jsonl"
    with path.open("w") as file:
        for number in range(1, 500_001):
            file.write(ROW if number != 456_789 else '{"instruction": Question}\n')
    return path


def late_latin1(folder: Path) -> Path:
    """A CSV file in ASCII but for one letter in Latin-1 far behind."""
    path = folder / "late_latin1.csv"
    rows = b"question,answer\n" * 200_000
    path.write_bytes(b"instruction,output\n" + rows + b"Was?,K\xe4se\n" + rows)
    return path


def link_loop(folder: Path) -> Path:
    """A link to itself."""
    path = folder / "loop.jsonl"
    path.symlink_to(path.name)
    return path


def folder_loop(folder: Path) -> Path:
    """A folder with a file and a link to the folder itself."""
    path = folder / "circle"
    path.mkdir()
    (path / "data.jsonl").write_text(ROW)
    (path / "again").symlink_to(path, target_is_directory=True)
    return path


def fifo(folder: Path) -> Path:
    """A pipe that nobody writes to: opening it would wait for ever."""
    path = folder / "pipe.jsonl"
    os.mkfifo(path)
    return path


def fifo_in_folder(folder: Path) -> Path:
    """A folder with such a pipe beside a file."""
    path = folder / "with_pipe"
    path.mkdir()
    (path / "data.jsonl").write_text(ROW)
    os.mkfifo(path / "pipe.jsonl")
    return path


MAKERS = (
    long_line, long_first_line, blank_inside, long_quote, no_line_end, bomb, many_rows,
    late_latin1, link_loop,
    folder_loop, fifo, fifo_in_folder,
)  # fmt: skip

if __name__ == "__main__":
    for maker in MAKERS:
        print(maker(Path(sys.argv[1])))
