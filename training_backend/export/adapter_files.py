"""The adapter alone, for programs that put it on the base model themselves."""

from __future__ import annotations

from pathlib import Path

from training_backend.export.model_files import TOKENIZER_FILES, copy_file
from training_backend.models.adapters import CONFIG, WEIGHTS, Adapter
from training_backend.paths import require_free
from training_backend.worker import Reporter


def write_adapter(adapter: Adapter, out: Path, reporter: Reporter) -> None:
    """Write the adapter's weights and settings and its tokenizer into `out`."""
    size = (adapter.folder / WEIGHTS).stat().st_size
    require_free(out, size + 50_000_000, "the adapter")
    reporter.phase("saving", detail="the adapter")
    for name in (WEIGHTS, CONFIG, *TOKENIZER_FILES):
        copy_file(adapter.folder / name, out)
