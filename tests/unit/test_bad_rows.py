"""Nothing in the corpus of bad data breaks preview or lint: a report, or one clear sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.byte_tokenizer import byte_tokenizer
from training_backend.data.lint import lint
from training_backend.data.preview import preview
from training_backend.data.training_rows import training_rows
from training_backend.errors import UserError
from training_backend.job import TrainingJob, parse_job

CORPUS = Path(__file__).parents[1] / "assets" / "bad_data"
FILES = sorted(
    path for path in CORPUS.rglob("*") if path.is_file() and path.suffix not in (".py", ".md")
)


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(CORPUS)))
def test_a_bad_file_gets_a_report_or_a_sentence(file: Path) -> None:
    job = parse_job({
        "model": {"id": "x"}, "dataset": {"path": str(file)}, "training": {"max_length": 64},
    })  # fmt: skip
    assert isinstance(job, TrainingJob)
    tokenizer = byte_tokenizer()
    try:
        report = lint(job, tokenizer)
    except UserError:
        return  # a sentence; which one is for test_bad_data.py
    usable = report.numbers.rows
    shown = preview(job, tokenizer, 1000)["rows"]
    assert sum(not row.get("problem") for row in shown) >= min(usable, 1000)
    for row in shown:
        assert row.get("problem") or 0 < row["n_trained"] <= row["n_tokens"] <= 64
    errors = sum(f.count for f in report.findings if f.severity == "error")
    assert errors == report.rows - usable
    if usable:
        assert training_rows(job, tokenizer).trained_share > 0
    else:
        with pytest.raises(UserError, match="can be trained on"):
            training_rows(job, tokenizer)
