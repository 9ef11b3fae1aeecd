"""How fast rows come out of files, and in how much memory.

    python tests/benchmarks/read_bench.py [--megabytes 1000] [--folder /tmp]

Makes a file of each kind of about that size in a folder of its own, measures each in a fresh
process, and removes them. The goal is the first 50 rows of any file in under 3 s and 150 MB.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TEXT = "Making crepes is an easy and delicious process! Here are step-by-step instructions. " * 2
KINDS = ("jsonl", "json", "csv", "parquet", "txt", "xlsx")
XLSX_SHARE = 20  # a spreadsheet is that much smaller: it takes minutes to write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    print("kind        size    first rows  memory      all rows      rate   memory")
    for kind in options.kinds:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            path = Path(folder, f"data.{kind}")
            write(path, options.megabytes * 1_000_000 // len(TEXT))
            answer = subprocess.run(
                [sys.executable, __file__, "--measure", str(path)],
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                check=True,
            )
            found = json.loads(answer.stdout)
            megabytes = path.stat().st_size / 1e6
        print(
            f"{kind:8}{megabytes:7.0f} MB{found['first']:10.2f} s{found['first_memory']:6.0f} MB"
            f"{found['n_rows']:12,d}{found['n_rows'] / found['all']:9,.0f}/s"
            f"{found['all_memory']:6.0f} MB",
            flush=True,
        )


def rows(n_rows: int):  # type: ignore[no-untyped-def]
    return ({"instruction": f"Question {n}", "output": TEXT + str(n)} for n in range(n_rows))


def write(path: Path, n_rows: int) -> None:
    kind = path.suffix[1:]
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        with pyarrow.parquet.ParquetWriter(
            path, pyarrow.schema({"instruction": "string", "output": "string"}), compression=None,
            use_dictionary=False,
        ) as writer:  # fmt: skip
            for start in range(0, n_rows, 1_000_000):  # row groups as large as pandas makes them
                part = list(rows(min(1_000_000, n_rows - start)))
                writer.write_table(pyarrow.Table.from_pylist(part), row_group_size=1_000_000)
        return
    if kind == "xlsx":
        import openpyxl

        book = openpyxl.Workbook(write_only=True)
        sheet = book.create_sheet("Data")
        sheet.append(["instruction", "output"])
        for row in rows(n_rows // XLSX_SHARE):
            sheet.append(list(row.values()))
        book.save(path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        if kind == "csv":
            writer = csv.DictWriter(file, ["instruction", "output"], delimiter=";")
            writer.writeheader()
            writer.writerows(rows(n_rows))
        elif kind == "json":
            file.write('{"data": [')
            for n, row in enumerate(rows(n_rows)):
                file.write((",\n" if n else "") + json.dumps(row))
            file.write("]}")
        elif kind == "txt":
            file.writelines(row["output"] + "\n\n" for row in rows(n_rows))
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows(n_rows))


def measure(path: Path) -> dict[str, float]:
    """Seconds and megabytes over those of the idle process."""
    import psutil

    sys.path.insert(0, str(REPOSITORY))
    from training_backend.data.reader import open_source
    from training_backend.job import SourceSection

    process = psutil.Process()
    idle = process.memory_info().rss
    peak = idle

    def memory() -> float:
        nonlocal peak
        peak = max(peak, process.memory_info().rss)
        return (peak - idle) / 1e6

    started = time.perf_counter()
    table = open_source(SourceSection(path=str(path)))
    found: dict[str, float] = {"n_first": len(list(table.rows(limit=50)))}
    found["first"] = time.perf_counter() - started
    found["first_memory"] = memory()
    started = time.perf_counter()
    n_rows = 0
    for n_rows, _ in enumerate(table.rows(), start=1):
        if n_rows % 10_000 == 0:
            memory()
    found["all"] = time.perf_counter() - started
    found["n_rows"] = n_rows
    found["all_memory"] = memory()
    return found


if __name__ == "__main__":
    main()
