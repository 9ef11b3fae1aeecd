"""Where the changes of a loaded model's parameters go in the files, and its two ends.

Many models use one table for input and output. Where training parted the two, so must the result:
transformers would else read the one for both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from training_backend.export.changes import (
    HEAD,
    INPUT_TABLES,
    Base,
    Change,
    Changes,
    Tokens,
    Update,
    Whole,
    is_table,
    last_name,
    misfit,
    result_shape,
)
from training_backend.export.tensor_file import FLOATS, TensorInfo

Ends = Mapping[str, tuple[str, Change | None]]  # as `Changes.added`


@dataclass(frozen=True)
class Placing:
    """Finds the places of changes.

    `same` tells whether two of the adapter's tensors, of one type and shape, hold the same.
    """

    base: Base
    same: Callable[[TensorInfo, TensorInfo], bool]

    def placed(self, by_parameter: dict[str, Change], by_name: dict[str, Change]) -> Changes:
        """All changes by the names in the files, the model's two ends apart where they must be.

        Args:
            by_parameter: changes by the loaded model's names.
            by_name: changes that have their places already.

        Raises `UserError` for one without a place, or of another shape.
        """
        changes = Changes(of=dict(by_name))
        head = next((p for p in by_parameter if last_name(p) == HEAD), None)
        table = next((p for p in by_parameter if last_name(p) in INPUT_TABLES), None)
        rest = by_parameter
        if (head or table) and self._is_tied():
            rest = {p: change for p, change in by_parameter.items() if p != head}
            self._place_head(by_parameter.get(head or ""), table, rest, changes)
        for parameter, change in rest.items():
            name = self.base.find(parameter)
            if name is None:
                raise misfit(f"there is no weight {parameter} in the base model")
            if name in changes.of:
                raise misfit(f"it changes {name} twice")
            changes.of[name] = change
        self._check_shapes(changes)
        return changes

    def _is_tied(self) -> bool:
        if "text_config" in self.base.config:
            raise misfit(
                "it changes the table of tokens of a model with several parts, which cannot be "
                "merged"
            )
        return bool(self.base.config.get("tie_word_embeddings")) or (
            self.base.find(f"{HEAD}.weight") is None
        )

    def _place_head(
        self, of_head: Change | None, table: str | None, rest: Mapping[str, Change],
        changes: Changes,
    ) -> None:  # fmt: skip
        """One table for input and output in the base: does it stay one?

        PEFT keeps it one for trained tokens, and saves it twice where it was asked to keep it
        one; else only the end that was named is changed, and the other remains what it was.
        """
        name = self.base.find(table) if table else next(
            (name for name in self.base.tensors if last_name(name) in INPUT_TABLES), None
        )  # fmt: skip
        if name is None:
            raise misfit("there is no table of tokens in this base model")
        if self._stays_one(rest.get(table) if table else None, of_head):
            return
        changes.config["tie_word_embeddings"] = False
        head = self.base.find(f"{HEAD}.weight")
        if head is None:
            self._check_alone(name)
        changes.added[head or f"{HEAD}.weight"] = (name, of_head)

    def _check_alone(self, table: str) -> None:
        """That the base has no head by another name, which a second one would not replace."""
        shape = self.base.tensors[table].shape
        for name, tensor in self.base.tensors.items():
            if name != table and tensor.shape == shape and not re.search(r"\.\d+\.", name):
                raise misfit(f"it is not clear what {name} of the base model is for")

    def _stays_one(self, of_table: Change | None, of_head: Change | None) -> bool:
        match of_table, of_head:
            case Tokens(), None:
                return True
            case Tokens(table, rows, start), Tokens(head, others, head_start):
                return rows == others and self._same(table, head) and self._same(start, head_start)
            case Whole(table), Whole(head):
                return self._same(table, head)
        return False

    def _same(self, one: TensorInfo | None, other: TensorInfo | None) -> bool:
        if one is None or other is None:
            return one is other
        return (one.dtype, one.shape) == (other.dtype, other.shape) and self.same(one, other)

    def _check_shapes(self, changes: Changes) -> None:
        every = {name: (name, change) for name, change in changes.of.items()} | changes.added
        for name, (source, change) in every.items():
            tensor = self.base.tensors[source]
            if tensor.dtype not in FLOATS:
                raise misfit(
                    f"{source} of the base model is {tensor.dtype}; a 16-bit base is needed"
                )
            shape = result_shape(change, tensor)
            grows = is_table(name) and (
                isinstance(change, Whole)
                or (isinstance(change, Update | Tokens) and change.start is not None)
            )
            if shape[1:] != tensor.shape[1:] or (shape != tensor.shape and not grows):
                raise misfit(f"{name} has another shape in this base model")
            if isinstance(change, Tokens) and max(change.rows, default=0) >= shape[0]:
                raise misfit(f"{name} has too few rows for the tokens that were trained")
        self._check_vocabulary(every, changes)

    def _check_vocabulary(self, every: Ends, changes: Changes) -> None:
        """Where training made the vocabulary larger, both ends must have been saved."""
        before = {
            name: tensor.shape[0] for name, tensor in self.base.tensors.items() if is_table(name)
        }
        after = before | {
            name: result_shape(change, self.base.tensors[source])[0]
            for name, (source, change) in every.items()
            if is_table(name)
        }
        if set(after.values()) != set(before.values()):
            if len(set(after.values())) > 1:
                raise misfit(
                    "its table of tokens has another number of rows than this base model's"
                )
            changes.config["vocab_size"] = next(iter(after.values()))
