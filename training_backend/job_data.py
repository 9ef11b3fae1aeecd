"""The data section of a job: which files, how they are read, and what is made of their rows.

Rows are numbered from 0 in the order of the sources, each whole, as `preview` and `lint`
number them; weights and the split come after that.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from training_backend.job_fields import Section, field

DataFormat = Literal[
    "auto",
    "messages",
    "sharegpt",
    "alpaca",
    "prompt_completion",
    "question_answer",
    "text",
    "preference",
    "kto",
    "custom",
]

# What a column can be. `messages` is a list of turns; `text` is learned from whole.
ColumnRole = Literal[
    "system", "user", "assistant", "reasoning", "tool", "tools", "messages", "text", "weight"
]

LossOn = Literal["assistant", "last_answer", "everything"]

# Shipped with the program (resources/chat_templates), for models that come without one.
StandardTemplate = Literal["plain", "chatml", "llama3", "mistral", "gemma", "alpaca"]

MAX_FIX_ROWS = 100_000  # of one fix that lists its rows; more are chosen by a finding

# A placeholder as in {column}; {{ and }} stand for the braces themselves.
PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")


class MappingSection(Section):
    """How rows of no known form become a conversation.

    Either `columns` names what each column is, or the templates say what each turn is made
    of. Several columns of one role stand one below the other, in the order given here.
    """

    columns: dict[str, ColumnRole] = field(
        {}, "Columns", "What each column of the data is.", form=False
    )
    user: str | None = field(
        None, "Question", "A text with {column} placeholders that becomes the question.", form=False
    )
    assistant: str | None = field(
        None, "Answer", "A text with {column} placeholders that becomes the answer.", form=False
    )
    system: str | None = field(
        None,
        "System text",
        "A text with {column} placeholders that comes before the question.",
        form=False,
    )
    system_prompt: str | None = field(
        None, "System prompt", "The same for every row that has none of its own.", form=False
    )

    @model_validator(mode="after")
    def _has_an_answer(self) -> Self:
        if self.columns and (self.user or self.assistant or self.system):
            raise ValueError("give either columns or texts with placeholders, not both")
        learned = {"assistant", "messages", "text"}
        if not self.assistant and not learned & set(self.columns.values()):
            raise ValueError("say which column is the answer (assistant), the messages or the text")
        if self.assistant and not placeholders(self.assistant):
            raise ValueError("the answer has no {column} in it, so it would be the same everywhere")
        return self


class ReadingSection(Section):
    """How a source is read. What is None is found out."""

    format: DataFormat = field(
        "auto", "Format", "How the rows are written. Auto finds out by itself.", form=False
    )
    encoding: str | None = field(
        None, "Encoding", "Of a text file, such as utf-8 or latin-1.", form=False, max_length=40
    )
    delimiter: str | None = field(
        None, "Delimiter", "What separates the columns of a CSV file.", form=False,
        min_length=1, max_length=1,
    )  # fmt: skip
    sheet: str | None = field(None, "Sheet", "Of an Excel file.", form=False, min_length=1)
    subset: str | None = field(
        None, "Subset", "Of a dataset on the Hub that has several.", form=False, min_length=1
    )
    split: str = field("train", "Split", "Of a dataset on the Hub.", form=False, min_length=1)
    skip_bad_lines: bool = field(
        False,
        "Leave out bad lines",
        "Lines that cannot be read are left out and counted, rather than end the reading.",
        form=False,
    )
    mapping: MappingSection | None = field(
        None, "Mapping", "What the columns of a form of your own are.", form=False
    )

    @field_validator("mapping")
    @classmethod
    def _fits_the_format(
        cls, mapping: MappingSection | None, known: ValidationInfo
    ) -> MappingSection | None:
        format = known.data.get("format", "auto")
        if format == "custom" and mapping is None:
            raise ValueError("the format custom needs a mapping that says what the columns are")
        if mapping is not None and format not in ("auto", "custom"):
            raise ValueError(f"a mapping goes with the format custom, not {format}")
        return mapping


class SourceSection(ReadingSection):
    """One file, folder or Hub dataset of a mixture.

    Without any weights every row is learned from once an epoch. Weights are shares of the
    rows of an epoch: with 3 and 1, three rows of the first source come to one of the second.
    No row is left out for that; a source too small for its share is repeated. Where only
    some sources have one, the others weigh 1.
    """

    path: str = field(..., "Data", "A file, a folder, a Hub id, or demo.", form=False, min_length=1)
    weight: float | None = field(
        None, "Weight", "Its share of the mixture, against the other sources.", form=False,
        gt=0, le=1_000_000,
    )  # fmt: skip


class DropRows(Section):
    """Leave rows out: those listed, or all that `lint` reports under a code."""

    code: Literal["drop_rows"] = "drop_rows"
    finding: str | None = None
    rows: tuple[Annotated[int, Field(ge=0)], ...] = Field((), max_length=MAX_FIX_ROWS)

    @model_validator(mode="after")
    def _names_some(self) -> Self:
        if (self.finding is None) == (not self.rows):
            raise ValueError("name either a finding of lint or rows")
        return self


class Deduplicate(Section):
    """Keep only the first of rows that become the same conversation."""

    code: Literal["deduplicate"] = "deduplicate"


class DropOverlap(Section):
    """Leave out held-out rows that are trained on too."""

    code: Literal["drop_overlap"] = "drop_overlap"


class StripControlTokens(Section):
    """Remove the model's special tokens, such as <|im_end|>, from inside the texts."""

    code: Literal["strip_control_tokens"] = "strip_control_tokens"


class RepairEncoding(Section):
    """Undo UTF-8 text that was read as Latin-1 or Windows-1252 (CafÃ© becomes Café)."""

    code: Literal["repair_encoding"] = "repair_encoding"


class FillPlaceholders(Section):
    """Write texts in the place of unfilled placeholders such as {{name}}."""

    code: Literal["fill_placeholders"] = "fill_placeholders"
    values: dict[str, str] = Field(min_length=1, max_length=100)


class SetSystemPrompt(Section):
    """Give every conversation without a system prompt this one."""

    code: Literal["set_system_prompt"] = "set_system_prompt"
    text: str


Fix = Annotated[
    DropRows
    | Deduplicate
    | DropOverlap
    | StripControlTokens
    | RepairEncoding
    | FillPlaceholders
    | SetSystemPrompt,
    Field(discriminator="code"),
]


class DatasetSection(ReadingSection):
    """`path` with its reading fields is short for one source."""

    path: str | None = field(
        None, "Data", "A file, a folder, a Hub id, or demo.", form=False, min_length=1
    )
    sources: tuple[SourceSection, ...] = field(
        (), "Sources", "Several files with their shares.", form=False, max_length=100
    )
    held_out_path: str | None = field(
        None, "Test file", "A file of its own to test on, read as the first source.", form=False,
        min_length=1,
    )  # fmt: skip
    max_rows: int | None = field(
        None,
        "Rows to learn from",
        "So many at most, chosen by the seed; the rows to test on stay the same. By default all.",
        form=False,
        advanced=True,
        aliases=("max_samples", "max_train_samples"),
        ge=1,
        le=1_000_000_000,
    )
    loss_on: LossOn = field(
        "assistant",
        "Learn from",
        "Every answer, only the last one of each conversation, or questions too.",
        form=False,
    )
    chat_template: StandardTemplate | None = field(
        None, "Chat template", "Instead of the model's own.", form=False
    )
    chunk_length: int | None = field(
        None,
        "Piece length",
        "Plain text is cut into pieces of so many tokens; by default as long as a row may be.",
        form=False,
        unit="tokens",
        ge=8,
        le=1_000_000,
    )
    fixes: tuple[Fix, ...] = field(
        (), "Fixes", "Done to the rows on the way; the file stays as it is.", form=False,
        max_length=1000,
    )  # fmt: skip

    @model_validator(mode="after")
    def _one_or_several(self) -> Self:
        if (self.path is None) == (not self.sources):
            raise ValueError("give either path or sources" if self.sources else "is missing")
        if self.sources and any(
            getattr(self, name) != info.default
            for name, info in ReadingSection.model_fields.items()
        ):
            raise ValueError("with sources, each says for itself how it is read")
        return self

    def resolved_sources(self) -> tuple[SourceSection, ...]:
        """The sources, of which the short form is one."""
        return self.sources or (self._read_alike(self.path or "", self),)

    def held_out_source(self) -> SourceSection | None:
        """The file to test on, read as the first source is; None when there is none."""
        if self.held_out_path is None:
            return None
        return self._read_alike(self.held_out_path, self.resolved_sources()[0])

    def with_paths(self, change: Callable[[str], str]) -> DatasetSection:
        """The same section with every path changed."""
        return self.model_copy(
            update={
                "path": None if self.path is None else change(self.path),
                "held_out_path": self.held_out_path and change(self.held_out_path),
                "sources": tuple(
                    source.model_copy(update={"path": change(source.path)})
                    for source in self.sources
                ),
            }
        )

    @property
    def title(self) -> str:
        """All paths in one line, for lists of runs."""
        return " + ".join(source.path for source in self.resolved_sources())

    @staticmethod
    def _read_alike(path: str, like: ReadingSection) -> SourceSection:
        shared = {name: getattr(like, name) for name in ReadingSection.model_fields}
        return SourceSection(path=path, **shared)


def placeholders(template: str) -> list[str]:
    """The columns that a template names."""
    return [match[1] for match in PLACEHOLDER.finditer(template) if match[1]]
