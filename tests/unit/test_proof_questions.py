"""What an export and the trained model are asked."""

from __future__ import annotations

from typing import Any

import pytest

from training_backend.errors import JobError
from training_backend.export.proof_questions import questions
from training_backend.job import MOST_QUESTIONS, ExportJob, VerifyJob, parse_job


class Tokenizer:
    """Of a model that takes plain texts."""

    chat_template = ""


@pytest.mark.parametrize(
    "job", [{"kind": "export", "out": "/out"}, {"kind": "verify", "folder": "/out"}]
)
def test_all_own_questions_that_a_job_may_have_are_asked(job: dict[str, Any]) -> None:
    most = [f"Question {n}?" for n in range(MOST_QUESTIONS)]
    found = parse_job({**job, "run": "r", "prompts": most})
    assert isinstance(found, ExportJob | VerifyJob)
    asked, _ = questions(None, Tokenizer(), found.prompts)
    assert [question.text for question in asked] == most
    with pytest.raises(JobError, match="prompts"):
        parse_job({**job, "run": "r", "prompts": [*most, "One more?"]})
