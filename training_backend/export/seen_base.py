"""The base model as 4-bit training saw it: every layer's weights to 4 bits and back.

The adapter of such a run learned beside these weights, not beside those of the files. What is
quantised, and every number, as bitsandbytes makes it (QLoRA, arXiv:2305.14314, section 3): 16
levels between minus and plus the largest of a block of 64, the blocks' largest in 8 bits with
double quantisation. On the processor, whatever trained; memory is a few times one layer.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from training_backend.errors import UserError
from training_backend.export import four_bit_tools
from training_backend.export.child import ChildDied, ChildFailed, in_child
from training_backend.export.merge import Seen, Values
from training_backend.export.tensor_file import Array, TensorFile, TensorInfo, from_float32
from training_backend.job import QuantizationSection
from training_backend.models.adapters import Adapter
from training_backend.worker import Reporter

BLOCK, NESTED_BLOCK = 64, 256
CHUNK_VALUES = 1 << 21  # quantised at once, as blocks do not know of one another


def seen_weights(base: Path, files: list[Path], adapter: Adapter, reporter: Reporter) -> Seen:
    """How to make each weight that training saw in 4 bits, by its name in the base's files.

    Raises `UserError` for a run that was trained on the 16-bit base, or a model whose layers
    cannot be told; `StopRequested`.
    """
    asked = QuantizationSection()
    if adapter.run is not None:
        asked = adapter.run.training_job().quantization
    else:
        reporter.warn(
            "four_bits_assumed",
            "The adapter does not say how its base was quantised; NF4 with double quantisation is "
            "assumed, as most programs do it.",
        )
    if not asked.load_in_4bit:
        raise UserError(
            "base_was_16_bit",
            "This run was trained on the base model in 16 bits, not in 4.",
            "Choose the 16-bit base.",
            field="base",
        )
    reporter.phase("quantising", detail="looking which layers training had in 4 bits")
    tensors: list[TensorInfo] = []
    for path in files:
        with TensorFile(path) as file:
            tensors += file.tensors
    try:
        plan: four_bit_tools.Plan = in_child(
            four_bit_tools.plan, str(base), tensors, name="four-bit",
            meanwhile=reporter.check_stop,
        )  # fmt: skip
    except (ChildDied, ChildFailed) as error:
        raise UserError(
            "four_bit_layers_unknown",
            "It cannot be told which layers of {base} training had in 4 bits: {reason}.",
            "Choose the 16-bit base.",
            field="base",
            base=base,
            reason=error,
        ) from None
    return {name: partial(_seen, asked, transposed) for name, transposed in plan.layers.items()}


def _seen(
    asked: QuantizationSection, transposed: bool, file: TensorFile, tensor: TensorInfo
) -> Values:
    """The rows of a weight after it was in 4 bits."""
    stored = from_float32(file.read(tensor), "BF16")  # as training loads it
    values = stored.T if transposed else stored
    seen = to_4_bits_and_back(
        np.ascontiguousarray(values), asked.bnb_4bit_quant_type, asked.bnb_4bit_use_double_quant
    )
    return partial(_rows, np.ascontiguousarray(seen.T) if transposed else seen)


def _rows(seen: Array, rows: slice) -> Array:
    bits = seen[rows].astype(np.uint32)
    bits <<= np.uint32(16)
    return bits.view(np.float32)


def to_4_bits_and_back(values: Array, quant_type: str, double: bool) -> Array:
    """What bitsandbytes has for a weight when it is used.

    Args:
        values: rows x columns of bfloat16, as their bits (uint16), in one piece.

    Returns the same, quantised and dequantised.
    """
    # Only here: a merge into the 16-bit base does without torch.
    import torch
    from bitsandbytes import functional as bnb

    weight = torch.from_numpy(values).view(torch.bfloat16)
    flat = weight.reshape(-1)
    codes, largest = [], []
    for first in range(0, flat.numel(), CHUNK_VALUES):
        part, state = bnb.quantize_4bit(
            flat[first : first + CHUNK_VALUES], blocksize=BLOCK, quant_type=quant_type
        )
        codes.append(part)
        largest.append(state.absmax)
    absmax = torch.cat(largest)
    if double:
        offset = absmax.mean()
        nested, how = bnb.quantize_blockwise(absmax - offset, blocksize=NESTED_BLOCK)
        absmax = bnb.dequantize_blockwise(nested, how) + offset
    state = bnb.QuantState(
        absmax=absmax.float(),
        shape=weight.shape,
        code=bnb.get_4bit_type(quant_type, device="cpu"),
        blocksize=BLOCK,
        quant_type=quant_type,
        dtype=torch.bfloat16,
    )
    seen: Array = bnb.dequantize_4bit(torch.cat(codes), state).view(torch.uint16).numpy()
    return seen
