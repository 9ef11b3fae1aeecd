"""The rows of a run: prepared, split, mixed, and packed tightly for the trainer.

Needs pyarrow and datasets, so it is for the worker alone.
"""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from training_backend.data import pairs, split
from training_backend.data.formatting import IGNORED
from training_backend.data.prepare import Preparation, PreparedRow
from training_backend.data.row_places import RowPlaces
from training_backend.data.sources import no_usable_rows
from training_backend.data.table import FIELD
from training_backend.errors import UserError
from training_backend.job import TrainingJob

_EXAMPLES = 5
_MANY_REPEATS = 4
_NOWHERE = (-1, -1)

Warned = tuple[str, str, dict[str, Any]]  # code, template and its values


@dataclass(frozen=True)
class Question:
    """The last exchange of a held-out row, in tokens.

    `prompt` is all that stands before the answer, as the chat template writes it; `asked` the
    text in it that the answer replies to, and `reference` the answer of the data, its end token
    included.
    """

    prompt: list[int]
    asked: list[int]
    reference: list[int]


@dataclass
class TrainingRows:
    """What goes to the trainer: datasets of `input_ids` and `labels`, or of pairs.

    Pairs are `prompt_ids`, `chosen_ids` and `rejected_ids`.
    `trained_share` is the share of the tokens of `train` that are learned from. `questions` are
    the held-out rows to be answered at the end. `places` tells where the rows of `train` are from.
    """

    train: Any
    held_out: Any | None
    trained_share: float
    places: RowPlaces
    warnings: list[Warned] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)


def training_rows(
    job: TrainingJob,
    tokenizer: Any,
    on_progress: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainingRows:
    """Prepare all rows of a job.

    Args:
        on_progress: is given the rows done so far, now and then.

    Raises `UserError` when there is nothing to train on or nothing to test on.
    """
    preparation = Preparation(job, tokenizer)
    rows = _collect(preparation, False, on_progress, should_stop)
    rows.require_some(preparation.sources[0].table.name, len(preparation.sources))
    warnings = rows.warnings(job)
    held_out: Any | None = None
    questions: list[Question] = []
    if preparation.held_out is not None:
        test = _collect(preparation, True, on_progress, should_stop)
        test.require_some(preparation.held_out.table.name, 1, "dataset.held_out_path")
        known = set(rows.keys)
        overlap = [place for place, key in enumerate(test.keys) if key in known]
        places = list(range(len(test.keys)))
        if overlap and preparation.fixes.drop_overlap:
            places = [place for place in places if place not in set(overlap)]
        elif overlap:
            warnings.append(
                ("held_out_overlap", "{count} of the rows to test on are trained on too.",
                 {"count": len(overlap)})
            )  # fmt: skip
        if not places:
            raise UserError(
                "nothing_held_out",
                "All rows of the test file are trained on too.",
                "Choose another test file.",
                field="dataset.held_out_path",
            )
        held_out = test.dataset(places)
        questions = test.questions(places, job)
        held: list[int] = []
    else:
        held = _held_out(rows, job)
        held_out = rows.dataset(held) if held else None
        questions = rows.questions(held, job)
    chosen = rows.epoch(set(held), job)
    most, there = job.dataset.max_rows, len(rows.keys) - len(held)
    if most is not None and there < most:
        warnings.append(
            ("fewer_rows", "There are {count} rows to learn from, fewer than the {most} asked for.",
             {"count": there, "most": most})
        )  # fmt: skip
    warnings += _repeats(rows, chosen, preparation)
    if job.evaluation.task_metric_rows and not questions:
        warnings.append(
            ("nothing_to_compare",
             "No held-out row has an answer that is whole, so no answers are compared.", {})
        )  # fmt: skip
    # Known now that every row has been gone through; said first.
    warnings[:0] = [(notice.code, notice.message, notice.params) for notice in preparation.notices]
    return TrainingRows(
        rows.dataset(chosen),
        held_out,
        rows.trained_share(chosen),
        RowPlaces.of((source.table.name for source in preparation.sources), rows.origins(chosen)),
        warnings,
        questions,
    )


def _repeats(rows: _Rows, chosen: list[int], preparation: Preparation) -> list[Warned]:
    """Sources that the weights of a mixture repeat so often that they are learned by heart."""
    once, taken = Counter(rows.sources), Counter(rows.sources[place] for place in chosen)
    return [
        ("source_repeated", "{name} is gone through {times} times an epoch.",
         {"name": source.table.name, "times": round(taken[number] / once[number])})
        for number, source in enumerate(preparation.sources)
        if once[number] and taken[number] >= _MANY_REPEATS * once[number]
    ]  # fmt: skip


def _held_out(rows: _Rows, job: TrainingJob) -> list[int]:
    fraction = job.evaluation.held_out_fraction
    if not fraction:
        return []
    held = split.hold_out(rows.keys, fraction, job.training.seed)
    if not 0 < len(held) < len(rows.keys):
        raise UserError(
            "nothing_held_out",
            "{fraction} of {rows} rows leaves nothing to test on or nothing to train on.",
            "Choose another share, or 0.",
            field="evaluation.held_out_fraction",
            fraction=fraction,
            rows=len(rows.keys),
        )
    return held


@dataclass
class _Rows:
    """Rows by their place; the tokens of all in one array, four bytes each."""

    in_pairs: bool = False
    keys: list[bytes] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    positions: array[int] = field(default_factory=lambda: array("q"))  # in their sources
    tokens: array[int] = field(default_factory=lambda: array("i"))
    labels: array[int] = field(default_factory=lambda: array("i"))
    ends: array[int] = field(default_factory=lambda: array("q", [0]))  # of each sequence
    sequences: array[int] = field(default_factory=lambda: array("q", [0]))  # of each row
    exchanges: array[int] = field(default_factory=lambda: array("i"))  # four ends a row
    cut: int = 0
    problems: int = 0
    examples: list[str] = field(default_factory=list)
    left_out_on_purpose: int = 0

    def add(self, row: PreparedRow) -> None:
        if row.problem is not None:
            if row.problem.code == "labelled_bad":
                self.left_out_on_purpose += 1
                return
            self.problems += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append(f"{row.place} {row.problem}")
            return
        self.keys.append(row.key)
        self.sources.append(row.source)
        self.positions.append(row.position)
        if self.in_pairs:
            chosen, rejected = row.sequences
            (begin, _), (other_begin, _) = chosen.trained[0], rejected.trained[0]
            # What follows the answer, such as a line break, is no part of it.
            ids = [sequence.input_ids[: sequence.trained[-1][1]] for sequence in row.sequences]
            prompt, *answers = pairs.split(ids[0], begin, ids[1], other_begin)
            self._append(prompt, [IGNORED] * len(prompt))
            for answer in answers:
                self._append(answer, answer)
        else:
            for sequence in row.sequences:
                self._append(sequence.input_ids, sequence.labels)
        self.sequences.append(len(self.ends) - 1)
        for span in row.sequences[0].exchange or (_NOWHERE, _NOWHERE):
            self.exchanges.extend(span)
        self.cut += any(sequence.truncated for sequence in row.sequences)

    def _append(self, tokens: list[int], labels: list[int]) -> None:
        self.tokens.extend(tokens)
        self.labels.extend(labels)
        self.ends.append(len(self.tokens))

    def require_some(self, name: str, sources: int, field: str = FIELD) -> None:
        if not self.keys:
            reason = self.examples[0] if self.examples else "all are left out"
            raise no_usable_rows(name if sources == 1 else "the sources", reason, field)

    def warnings(self, job: TrainingJob) -> list[Warned]:
        found: list[Warned] = []
        if self.problems:
            examples = "; ".join(self.examples) + ("; ..." if self.problems > _EXAMPLES else "")
            found.append(
                ("rows_left_out", "{count} of {total} rows are left out: {examples}.",
                 {"count": self.problems, "total": self.problems + len(self.keys),
                  "examples": examples})
            )  # fmt: skip
        if self.left_out_on_purpose:
            found.append(
                ("bad_left_out", "{count} rows are labelled as bad answers and left out.",
                 {"count": self.left_out_on_purpose})
            )  # fmt: skip
        if self.cut:
            found.append(
                ("rows_cut",
                 "{count} of {total} rows are longer than {max_length} tokens and are cut.",
                 {"count": self.cut, "total": len(self.keys),
                  "max_length": job.training.max_length})
            )  # fmt: skip
        return found

    def epoch(self, held: set[int], job: TrainingJob) -> list[int]:
        """The places of the rows of one epoch, those held out left out."""
        sources = job.dataset.resolved_sources()
        places: list[list[int]] = [[] for _ in sources]
        free = [place for place in range(len(self.sources)) if place not in held]
        if (most := job.dataset.max_rows) is not None:
            free = split.choose(free, most, job.training.seed)
        for place in free:
            places[self.sources[place]].append(place)
        return split.mix(places, [source.weight for source in sources], job.training.seed)

    def questions(self, places: list[int], job: TrainingJob) -> list[Question]:
        """As many of these rows as the job wants answered, by its seed, in order."""
        answered = [place for place in places if self.exchanges[4 * place] >= 0]
        wanted = min(job.evaluation.task_metric_rows, len(answered))
        chosen = random.Random(job.training.seed).sample(answered, wanted)
        return [self._question(place) for place in sorted(chosen)]

    def _question(self, place: int) -> Question:
        # A pair's prompt and chosen answer follow one another as the conversation does.
        first = self.ends[self.sequences[place]]
        asked, asked_end, answer, end = self.exchanges[4 * place : 4 * place + 4]
        tokens = self.tokens[first : first + end].tolist()
        return Question(tokens[:answer], tokens[asked:asked_end], tokens[answer:])

    def origins(self, places: list[int]) -> Iterator[tuple[int, int]]:
        """Source and position of each row of `dataset(places)`."""
        for place in places:
            sequences = self.sequences[place + 1] - self.sequences[place]
            for _ in range(1 if self.in_pairs else sequences):
                yield self.sources[place], self.positions[place]

    def dataset(self, places: list[int]) -> Any:
        import numpy
        import pyarrow
        from datasets import Dataset

        ends = numpy.frombuffer(self.ends, dtype=numpy.int64)
        chosen = [
            number
            for place in places
            for number in range(self.sequences[place], self.sequences[place + 1])
        ]
        bounds = [(ends[number], ends[number + 1]) for number in chosen]
        offsets = numpy.cumsum([0, *(end - begin for begin, end in bounds)])

        def column(values: array[int]) -> Any:
            flat = numpy.frombuffer(values, dtype=numpy.int32)
            parts = [flat[begin:end] for begin, end in bounds]
            return pyarrow.LargeListArray.from_arrays(
                pyarrow.array(offsets, pyarrow.int64()), pyarrow.array(numpy.concatenate(parts))
            )

        if not self.in_pairs:
            columns = {"input_ids": column(self.tokens), "labels": column(self.labels)}
            return Dataset(pyarrow.table(columns))
        # Each row is three sequences: what both answers follow, the chosen, the rejected.
        tokens = column(self.tokens)
        names = ("prompt_ids", "chosen_ids", "rejected_ids")
        parts = [tokens.take(pyarrow.array(range(n, len(tokens), 3))) for n in range(3)]
        return Dataset(pyarrow.table(dict(zip(names, parts, strict=True))))

    def trained_share(self, places: list[int]) -> float:
        """Raises `UserError` when nothing is learned from."""
        import numpy

        ends = numpy.frombuffer(self.ends, dtype=numpy.int64)
        learned = numpy.frombuffer(self.labels, dtype=numpy.int32) != IGNORED
        before = numpy.concatenate(([0], numpy.cumsum(learned)))
        rows = numpy.frombuffer(self.sequences, dtype=numpy.int64)
        begin, end = ends[rows[places]], ends[rows[numpy.array(places) + 1]]
        share = float((before[end] - before[begin]).sum() / max(1, (end - begin).sum()))
        if not share:
            raise UserError(
                "nothing_to_learn",
                "Not one token of the data is learned from.",
                "Look at the data: which turns are the answers, and how much they weigh.",
                field="dataset.path",
            )
        return share


def _collect(
    preparation: Preparation,
    held_out: bool,
    on_progress: Callable[[int], None] | None,
    should_stop: Callable[[], bool] | None,
) -> _Rows:
    rows = _Rows(preparation.in_pairs)
    for row in preparation.rows(held_out=held_out, should_stop=should_stop):
        rows.add(row)
        if on_progress and row.index % 1000 == 999:
            on_progress(row.index + 1)
    return rows
