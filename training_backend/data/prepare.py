"""From a job and a tokenizer to encoded rows: the one path of training, preview and lint.

    sources -> rows -> conversations -> fixes -> template and tokens -> `PreparedRow`

Rows are numbered from 0 over all sources in their order, as `preview` and `lint` show them;
those of a test file of its own are numbered apart.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from training_backend.data import mapping, pairs
from training_backend.data.abilities import notices
from training_backend.data.checks import TextChecks
from training_backend.data.fixes import Fixes
from training_backend.data.formatting import Encoded, Formatter
from training_backend.data.mapping import Conversation, RowProblem
from training_backend.data.sources import OpenSource, open_source
from training_backend.data.table import Notice, Row
from training_backend.errors import StopRequested, UserError
from training_backend.job import DataFormat, TrainingJob

BATCH_ROWS = 1000


@dataclass(slots=True)
class PreparedRow:
    """One row of the data and what became of it.

    Attributes:
        index: its number over all sources, from 0.
        place: where a person finds it: "data.jsonl, row 7", counted from 1.
        source: the number of its source.
        position: its number there, from 0.
        conversation: None when the row could not be mapped.
        sequences: what is trained on; none when there is a problem. Of a pair the chosen and the
            rejected conversation.
        rejected: the other conversation of a pair.
        problem: what keeps the row from being trained on.
        key: equal for rows that become the same text.
        codes: what the text checks found.
    """

    index: int
    place: str
    source: int
    position: int
    raw: Row
    conversation: Conversation | None = None
    rejected: Conversation | None = None
    sequences: list[Encoded] = field(default_factory=list)
    problem: RowProblem | None = None
    key: bytes = b""
    codes: list[str] = field(default_factory=list)


class Preparation:
    """Reads, maps, mends and encodes the rows of one job.

    Raises `UserError` for whatever is wrong with the job's data as a whole.
    """

    def __init__(self, job: TrainingJob, tokenizer: Any) -> None:
        dataset = job.dataset
        self.sources = [open_source(section) for section in dataset.resolved_sources()]
        held_out = dataset.held_out_source()
        self.held_out = open_source(held_out) if held_out else None
        self.in_pairs = job.training.objective == "dpo"
        if self.in_pairs:
            pairs.require_pairs([*self.sources, *([self.held_out] if self.held_out else [])])
        self.formatter = Formatter(
            tokenizer,
            job.training.max_length,
            "last_answer" if self.in_pairs else dataset.loss_on,
            dataset.chat_template,
            dataset.chunk_length,
            exchanges=job.evaluation.task_metric_rows > 0,
        )
        special = [str(t) for t in tokenizer.added_tokens_decoder.values() if t.special]
        self.fixes = Fixes(dataset.fixes, special)
        self.checks = TextChecks.against(special)
        self._notices: list[Notice] = []
        if self.formatter.used_fallback:
            self._note(
                "This model has no chat template; a plain one (User: / Assistant:) is used.",
                "no_chat_template",
            )
        for source in self.sources:
            self._note("" if self.in_pairs else mapping.notice(source.format))

    @property
    def notices(self) -> list[Notice]:
        """What a person should know of how the rows so far were read and used, each once."""
        sources = [*self.sources, *([self.held_out] if self.held_out else [])]
        found = [*self._notices, *(notice for source in sources for notice in source.table.notices)]
        return list({str(notice): notice for notice in found}.values())

    @property
    def format(self) -> DataFormat:
        """The form of the first source."""
        return self.sources[0].format

    def rows(
        self,
        *,
        held_out: bool = False,
        start: int = 0,
        limit: int | None = None,
        checked: bool = False,
        should_stop: Callable[[], bool] | None = None,
    ) -> Iterator[PreparedRow]:
        """The rows in order, those of fixes that drop left out.

        Args:
            held_out: those of the test file instead.
            start: the number of the first row.
            limit: rows read at most.
            checked: whether to run the text checks too.
            should_stop: asked between batches; True ends with `StopRequested`.
        """
        sources = [self.held_out] if held_out and self.held_out else self.sources
        seen: set[bytes] = set()
        read = itertools.islice(self._read(sources, start), limit)
        checked = checked or bool(self.fixes.findings)
        # Small first batches, so that the first rows are there at once.
        for size in itertools.chain((50, 250), itertools.repeat(BATCH_ROWS)):
            batch = list(itertools.islice(read, size))
            if not batch:
                return
            if should_stop and should_stop():
                raise StopRequested
            for row in self._encoded(batch, checked):
                if self._is_dropped(row, held_out):
                    continue
                if self.fixes.deduplicate and row.key:
                    if row.key in seen:
                        continue
                    seen.add(row.key)
                yield row

    def _read(self, sources: list[OpenSource], start: int) -> Iterator[PreparedRow]:
        for number, source, index, position, raw in _raw_rows(sources, start):
            place = f"{source.table.name}, row {position + 1}"
            row = PreparedRow(index, place, number, position, raw)
            try:
                conversation = mapping.to_conversation(raw, source.format, source.section.mapping)
                row.conversation = self.fixes.apply(conversation)
                if row.conversation is not conversation:
                    mapping.require_answers(row.conversation.messages)
                if self.in_pairs:
                    row.rejected = self.fixes.apply(pairs.rejected(raw, conversation))
            except RowProblem as problem:
                row.problem = problem
            except UserError as error:  # of a row that is of another form than the rest
                row.problem = RowProblem("is of no known form", error.code)
            yield row

    def _encoded(self, batch: list[PreparedRow], checked: bool) -> list[PreparedRow]:
        usable = [row for row in batch if row.problem is None]
        conversations = [row.conversation for row in usable if row.conversation is not None]
        rejected = [row.rejected for row in usable if row.rejected is not None]
        others = self.formatter.encode(rejected) if self.in_pairs else [[] for _ in usable]
        encoded = self.formatter.encode(conversations)
        for row, result, other in zip(usable, encoded, others, strict=True):
            if isinstance(result, RowProblem):
                row.problem = result
                continue
            if isinstance(other, RowProblem):
                row.problem = other
                continue
            row.sequences = [*result, *other]
            text = "".join(sequence.text for sequence in row.sequences[:1] + other)
            row.key = hashlib.blake2b(
                text.encode("utf-8", "surrogatepass"), digest_size=16
            ).digest()
        for conversation in conversations:
            for sentence in sorted(notices(conversation, self.formatter.abilities)):
                self._note(sentence)
        if checked:
            for row in usable:
                assert row.conversation is not None
                row.codes = self._codes(row, row.conversation)
        return batch

    def _codes(self, row: PreparedRow, conversation: Conversation) -> list[str]:
        codes = self.checks.codes(conversation)
        if any(sequence.truncated for sequence in row.sequences):
            codes.append("truncated")
        if any(not sequence.ends for sequence in row.sequences):
            codes.append("no_end_token")
        return codes

    def _is_dropped(self, row: PreparedRow, held_out: bool) -> bool:
        if not held_out and row.index in self.fixes.rows:
            return True
        if not self.fixes.findings:
            return False
        codes = [*row.codes, row.problem.code] if row.problem else row.codes
        return not self.fixes.findings.isdisjoint(codes)

    def _note(self, sentence: str, code: str = "data_notice") -> None:
        if sentence and sentence not in map(str, self._notices):
            self._notices.append(Notice(code, sentence, {}))


def _raw_rows(
    sources: list[OpenSource], start: int
) -> Iterator[tuple[int, OpenSource, int, int, Row]]:
    """(number of the source, source, number of the row, its place in the source, row)."""
    if len(sources) == 1:
        rows = enumerate(sources[0].table.rows(start), start)
        yield from ((0, sources[0], place, place, row) for place, row in rows)
        return
    index = 0
    for number, source in enumerate(sources):
        for place, row in enumerate(source.table.rows()):
            if index >= start:
                yield number, source, index, place, row
            index += 1
