"""Rows from Parquet files, one small batch at a time."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterator
from typing import Any

from training_backend.data.source_file import SourceFile
from training_backend.data.table import Progress, Row

_BATCH_ROWS = 256


class ParquetFile:
    """A Parquet file. Raises `UserError` when it is damaged or encrypted."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        opened = self._open()
        self.columns = tuple(opened.schema_arrow.names)
        self.n_rows = int(opened.metadata.num_rows)
        opened.close()
        binary = [field.name for field in opened.schema_arrow if _is_binary(field.type)]
        if binary:
            file.notes.add(
                "binary_columns",
                "{name}: {columns} hold pictures, sound or other bytes and are read as empty.",
                name=file.name,
                columns=", ".join(binary[:12]),
            )

    def read(self, progress: Progress, start: int) -> Iterator[Row]:
        """Rows from the one numbered `start`; whole row groups before it are not read."""
        import pyarrow

        opened = self._open()
        try:
            done = 0
            groups: list[int] = []
            for group in range(opened.metadata.num_row_groups):
                n_rows = opened.metadata.row_group(group).num_rows
                if not groups and done + n_rows <= start:
                    done += n_rows
                else:
                    groups.append(group)
            for batch in opened.iter_batches(_BATCH_ROWS, row_groups=groups, use_threads=False):
                for row in batch.to_pylist():
                    done += 1
                    progress.fraction = done / max(1, self.n_rows)
                    if done > start:
                        yield plain(row)
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise self._damaged(error) from None
        finally:
            opened.close()

    def _open(self) -> Any:
        import pyarrow.parquet

        try:
            # A buffer makes it read columns in pieces, not a whole row group at once.
            return pyarrow.parquet.ParquetFile(
                self._file.path, buffer_size=1 << 20, pre_buffer=False, memory_map=False
            )
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> Exception:
        if "encrypt" in str(error).lower():
            return self._file.error(
                "parquet_encrypted", "{name} is encrypted.", "Save it without encryption."
            )
        return self._file.error(
            "parquet_damaged",
            "{name} is a Parquet file that is damaged or not complete.",
            "Download or copy it again.",
        )


def _is_binary(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(
        types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    )


def plain(value: Any) -> Any:
    """A value of a table in the types of JSON; dates become ISO text, bytes are left out."""
    if isinstance(value, float) and value != value:
        return None  # pandas writes NaN for what is missing
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | datetime.timedelta):
        return str(value)
    return None
