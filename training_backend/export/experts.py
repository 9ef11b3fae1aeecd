"""Experts, which are one tensor in the loaded model and, in most families, many in its files.

PEFT's adapters name neither of the two fused tensors; their shapes tell which is meant. Its layout
(`ParamWrapper` in `peft.tuners.lora.layer`): A is (experts * r) x in, expert by expert, B is
out x (r * experts), rank by rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from training_backend.errors import UserError
from training_backend.export.changes import Base, Change, Expert, Fused, Update, Whole, misfit
from training_backend.export.tensor_file import TensorInfo

# The weights of one expert in the files, in the order of their rows in what is fused.
_WEIGHTS = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("down_proj",), ("w2",)),
}

Pair = dict[str, TensorInfo]


def updates(
    module: str, pairs: list[Pair], base: Base, scale: Callable[[str, int], float]
) -> Iterator[tuple[str, Change]]:
    """The changes of the files' weights by a module of fused experts.

    Args:
        pairs: what the adapter holds of the module, by PEFT's names.
        scale: alpha by rank of a parameter, as `changes.Update` has it.

    Raises `UserError` where they do not fit.
    """
    for pair in pairs:
        a, b = pair.get("lora_A.weight"), pair.get("lora_B.weight")
        if a is None or b is None or len(pair) > 2 or not (
            len(a.shape) == len(b.shape) == 2 and a.shape[0] == b.shape[1] > 0
        ):  # fmt: skip
            raise misfit(f"the two halves of {module} do not belong together")
        fitting = [part for part in _WEIGHTS if _fits(module, part, a, b, base)]
        if len(fitting) != 1:
            raise _unlike(module)
        yield from _updates(module, fitting[0], a, b, base, scale)


def in_full(parameter: str, tensor: TensorInfo, base: Base) -> list[tuple[str, Change]]:
    """The changes by fused experts that were trained in full; empty for any other parameter."""
    module, _, part = parameter.rpartition(".")
    weights = _weights(module, part, base) if module.endswith(".experts") else []
    if weights and tensor.shape != (len(weights), *_fused_shape(weights, base)):
        raise misfit(f"{parameter} has another shape in this base model")
    return [(name, Whole(tensor, expert)) for name, expert in _split(weights, base)]


def _updates(
    module: str, part: str, a: TensorInfo, b: TensorInfo, base: Base,
    scale: Callable[[str, int], float],
) -> Iterator[tuple[str, Change]]:  # fmt: skip
    weights = _weights(module, part, base)
    count = len(weights) or base.tensors[_fused(module, part, base)].shape[0]
    if a.shape[0] % count:
        raise misfit(f"{module} has another number of experts in this base model")
    strength = scale(f"{module}.{part}", a.shape[0] // count)
    for name, expert in _split(weights, base):
        yield name, Update(a, b, strength, expert=expert)
    if not weights:
        transposed = _is_transposed(module, base)
        of_each = (
            Update(a, b, strength, transposed=transposed, expert=Expert(number, count))
            for number in range(count)
        )
        yield _fused(module, part, base), Fused(tuple(of_each))


def _weights(module: str, part: str, base: Base) -> list[tuple[str, ...]]:
    """The names in the files of every expert's weights; empty where they are fused there."""
    for names in _WEIGHTS.get(part, ()):
        found: list[tuple[str, ...]] = []
        while True:
            stem = f"{module}.{len(found)}"
            files = [base.find(f"{stem}.{name}.weight") for name in names]
            if None in files:
                break
            found.append(tuple(map(str, files)))
        if found:
            return found
    return []


def _fused(module: str, part: str, base: Base) -> str:
    return base.find(f"{module}.{part}") or ""


def _fits(module: str, part: str, a: TensorInfo, b: TensorInfo, base: Base) -> bool:
    weights = _weights(module, part, base)
    if weights:
        return (b.shape[0], a.shape[1]) == _fused_shape(weights, base)
    fused = base.tensors.get(_fused(module, part, base))
    if fused is None or len(fused.shape) != 3:
        return False
    wanted = (a.shape[1], b.shape[0]) if _is_transposed(module, base) else (
        b.shape[0], a.shape[1]
    )  # fmt: skip
    return fused.shape[1:] == wanted


def _fused_shape(weights: list[tuple[str, ...]], base: Base) -> tuple[int, int]:
    """Rows and columns of one expert's weights below one another."""
    shapes = [base.tensors[name].shape for name in weights[0]]
    if any(base.tensors[name].shape != shape for names in weights
           for name, shape in zip(names, shapes, strict=True)):  # fmt: skip
        return (0, 0)
    return sum(shape[0] for shape in shapes), shapes[0][-1]


def _is_transposed(module: str, base: Base) -> bool:
    """Whether fused experts lie in x out: gate and up side by side, not below one another.

    Both are as wide as the model, so the one side that they share is the model's.
    """
    gate_up, down = (base.tensors.get(_fused(module, part, base))
                     for part in ("gate_up_proj", "down_proj"))  # fmt: skip
    if gate_up is None or down is None or len(gate_up.shape) != 3 or len(down.shape) != 3:
        raise _unlike(module)
    return gate_up.shape[2] == 2 * down.shape[1] and gate_up.shape[1] == down.shape[2]


def _split(weights: list[tuple[str, ...]], base: Base) -> Iterator[tuple[str, Expert]]:
    """Every expert's weights, and where each begins among the fused rows."""
    for index, names in enumerate(weights):
        first = 0
        for name in names:
            yield name, Expert(index, len(weights), first)
            first += base.tensors[name].shape[0]


def _unlike(module: str) -> UserError:
    return misfit(f"what it changes of {module} does not fit how this base model holds its experts")
