"""Problems in the data, by row, each in a plain sentence and where possible with a fix.

A fix is the `code` of one of the job's fixes (`job_data.Fix`); the file is never touched.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from training_backend.data.numbers import Numbers
from training_backend.data.prepare import Preparation, PreparedRow
from training_backend.job import TrainingJob

Severity = Literal["error", "warning", "info"]

LISTED_ROWS = 10_000  # of one finding; all are counted
_EXTREME_FACTOR = 20  # times the median length
_EXTREME_TOKENS = 1000


@dataclass(frozen=True)
class _Kind:
    severity: Severity
    message: str  # English template of `rows` ("3 rows"), `first` (an example), ...
    fix: str | None = None


# Rows of an error are left out of the training.
KINDS = {
    "empty_answer": _Kind("error", "An empty answer in {rows}.", "drop_rows"),
    "no_answer": _Kind("error", "No answer in {rows}.", "drop_rows"),
    "empty_turn": _Kind("error", "An empty question in {rows}.", "drop_rows"),
    "unknown_role": _Kind("error", "A role that is not known in {rows} ({first}).", "drop_rows"),
    "null_content": _Kind("error", "Null in the place of a text in {rows}.", "drop_rows"),
    "no_messages": _Kind("error", "No list of messages in {rows}.", "drop_rows"),
    "wrong_type": _Kind("error", "Something else than text in {rows} ({first}).", "drop_rows"),
    "not_text": _Kind("error", "Pictures or other media in {rows}.", "drop_rows"),
    "bad_tool_call": _Kind("error", "A damaged tool call in {rows}.", "drop_rows"),
    "bad_weight": _Kind("error", "A weight that is no number in {rows}.", "drop_rows"),
    "missing_column": _Kind(
        "error", "A column that the mapping names is missing in {rows} ({first}).", "drop_rows"
    ),
    "format_unknown": _Kind("error", "Another form than the rest in {rows}.", "drop_rows"),
    "template_refuses": _Kind(
        "error", "The chat template refuses {rows} (the first {first}).", "drop_rows"
    ),
    "answers_unclear": _Kind(
        "error",
        "The chat template rewrites {rows}, so that it cannot be told what is an answer.",
        "drop_rows",
    ),
    "answer_left_out": _Kind(
        "error", "The chat template leaves out an answer of {rows}.", "drop_rows"
    ),
    "nothing_trained": _Kind(
        "error", "No token to learn from in {rows} (the first {first}).", "drop_rows"
    ),
    "unusable": _Kind("error", "Of no use are {rows} (the first {first}).", "drop_rows"),
    "labelled_bad": _Kind("info", "Labelled as bad answers and left out: {rows}."),
    "truncated": _Kind(
        "warning",
        "Longer than {max_length} tokens, and so cut: {rows}; {share:.1%} of all tokens are lost.",
        "drop_rows",
    ),
    "no_end_token": _Kind(
        "warning",
        "An answer is learned without a token that ends it in {rows}: the model may not learn "
        "to stop.",
    ),
    "control_tokens": _Kind(
        "warning", "Control tokens of the model inside the text of {rows}.", "strip_control_tokens"
    ),
    "encoding_damage": _Kind(
        "warning", "Damaged characters, as in CafÃ©, in {rows}.", "repair_encoding"
    ),
    "hidden_characters": _Kind("warning", "Invisible control characters in {rows}.", "drop_rows"),
    "placeholders": _Kind(
        "warning", "Unfilled placeholders such as {first} in {rows}.", "fill_placeholders"
    ),
    "role_order": _Kind(
        "warning", "Turns that do not alternate between question and answer in {rows}.", "drop_rows"
    ),
    "duplicates": _Kind("warning", "Exact duplicates of an earlier row: {rows}.", "deduplicate"),
    "near_duplicates": _Kind("info", "Nearly the same as an earlier row: {rows}.", "drop_rows"),
    "overlap": _Kind(
        "warning", "To be tested on, yet trained on too: {rows} of the test file.", "drop_overlap"
    ),
    "own_system_prompt": _Kind(
        "info",
        "The chat template adds a system prompt of its own to {rows}: {first}",
        "set_system_prompt",
    ),
    "mixed_types": _Kind(
        "warning", "A column has another type than in the other rows in {rows} ({first})."
    ),
    "extreme_length": _Kind(
        "info", "More than 20 times as long as the median row: {rows}.", "drop_rows"
    ),
}


@dataclass
class Finding:
    """One kind of problem. `rows` are numbers from 0, the first 10,000 of them."""

    code: str
    severity: Severity
    count: int
    rows: list[int]
    message: str
    fix: str | None

    def document(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass
class LintReport:
    """What `lint` found. `rows` counts the rows gone through."""

    rows: int
    findings: list[Finding]
    numbers: Numbers
    notices: list[str]
    format: str

    def document(self, job: TrainingJob) -> dict[str, Any]:
        """As the command line gives it."""
        return {
            "rows": self.rows,
            "findings": [finding.document() for finding in self.findings],
            "numbers": self.numbers.document(job),
            "notices": self.notices,
            "format": self.format,
        }


def lint(
    job: TrainingJob,
    tokenizer: Any,
    *,
    near_duplicates: bool = False,
    on_progress: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> LintReport:
    """Go through all rows of a job, with its fixes done.

    Args:
        near_duplicates: look for rows that are nearly the same too; takes longer.
        on_progress: is given the rows done so far, every thousand.
        should_stop: asked now and then; True ends with `StopRequested`.

    Raises `UserError` for what is wrong with the data as a whole.
    """
    preparation = Preparation(job, tokenizer)
    collector = _Collector(preparation, near_duplicates)
    rows = 0
    for row in preparation.rows(checked=True, should_stop=should_stop):
        rows += 1
        collector.add(row)
        if on_progress and rows % 1000 == 0:
            on_progress(rows)
    if preparation.held_out is not None:
        collector.compare_held_out(preparation.rows(held_out=True, should_stop=should_stop))
    return LintReport(
        rows,
        collector.findings(job),
        collector.numbers,
        [str(notice) for notice in preparation.notices],
        preparation.format,
    )


@dataclass
class _Found:
    count: int = 0
    rows: list[int] = field(default_factory=list)
    first: str = ""

    def add(self, row: int, example: str = "") -> None:
        self.count += 1
        self.first = self.first or example
        if len(self.rows) < LISTED_ROWS:
            self.rows.append(row)


class _Collector:
    """Gathers findings row by row; what concerns rows together is judged at the end."""

    def __init__(self, preparation: Preparation, near_duplicates: bool) -> None:
        self.numbers = Numbers()
        self._preparation = preparation
        self._found: dict[str, _Found] = {}
        self._keys: set[bytes] = set()
        self._lengths = array("q")
        self._indices = array("q")
        self._types: dict[str, dict[str, _Found]] = {}
        self._near = None
        if near_duplicates:
            from training_backend.data.near_duplicates import NearDuplicates

            self._near = NearDuplicates()

    def add(self, row: PreparedRow) -> None:
        self._note_types(row)
        if row.problem is not None:
            code = row.problem.code if row.problem.code in KINDS else "unusable"
            self._note(code, row.index, str(row.problem))
            self.numbers.unusable += 1
            return
        for code in row.codes:
            self._note(code, row.index, _example(code, row))
        if row.key in self._keys:
            self._note("duplicates", row.index)
        else:
            self._keys.add(row.key)
            if self._near is not None:
                self._near.add(row.index, row.sequences[0].text)
        self._note_system_prompt(row)
        self.numbers.rows += 1
        length = 0
        for sequence in row.sequences:
            self.numbers.add(sequence.n_full, len(sequence.input_ids), sequence.n_trained)
            length += sequence.n_full
        self._lengths.append(length)
        self._indices.append(row.index)

    def compare_held_out(self, rows: Iterable[PreparedRow]) -> None:
        for row in rows:
            if row.key and row.key in self._keys:
                self._note("overlap", row.index)

    def findings(self, job: TrainingJob) -> list[Finding]:
        """Errors first, the most frequent first."""
        self._judge_types()
        self._judge_lengths()
        if self._near is not None:
            for row in self._near.found():
                self._note("near_duplicates", row)
        values = {
            "max_length": job.training.max_length,
            "share": self.numbers.cut_at(job.training.max_length)[1],
        }
        order = ["error", "warning", "info"]
        findings = []
        for code, found in self._found.items():
            kind = KINDS[code]
            counted = "1 row" if found.count == 1 else f"{found.count:,} rows"
            message = kind.message.format(rows=counted, first=found.first, **values)
            rows = sorted(found.rows)
            findings.append(Finding(code, kind.severity, found.count, rows, message, kind.fix))
        return sorted(findings, key=lambda f: (order.index(f.severity), -f.count, f.code))

    def _note(self, code: str, row: int, example: str = "") -> None:
        self._found.setdefault(code, _Found()).add(row, example[:200])

    def _note_types(self, row: PreparedRow) -> None:
        for column, value in row.raw.items():
            if value is not None:
                kinds = self._types.setdefault(column, {})
                name = type(value).__name__
                if name in kinds:
                    kinds[name].add(row.index)
                elif len(self._types) <= 1000:
                    kinds[name] = _Found(1, [row.index])

    def _note_system_prompt(self, row: PreparedRow) -> None:
        assert row.conversation is not None
        first = row.conversation.messages[0]["role"]
        if first in ("user", "assistant"):
            own = self._preparation.formatter.abilities.own_system
            if own:
                self._note("own_system_prompt", row.index, own)

    def _judge_types(self) -> None:
        rows: set[int] = set()
        example = ""
        for column, kinds in self._types.items():
            usual = max(kinds, key=lambda name: kinds[name].count)
            for name, found in kinds.items():
                if name != usual:
                    example = example or f"{column}: {name} beside {usual}"
                    rows.update(found.rows)
        for row in sorted(rows):
            self._note("mixed_types", row, example)

    def _judge_lengths(self) -> None:
        median = self.numbers.percentile(0.5)
        limit = max(_EXTREME_TOKENS, _EXTREME_FACTOR * median)
        if max(self._lengths, default=0) > limit:
            for index, length in zip(self._indices, self._lengths, strict=True):
                if length > limit:
                    self._note("extreme_length", index)


def _example(code: str, row: PreparedRow) -> str:
    if code != "placeholders" or row.conversation is None:
        return ""
    from training_backend.data.checks import UNFILLED

    text = "\n".join(message["content"] for message in row.conversation.messages)
    match = UNFILLED.search(text)
    return match[0] if match else ""
