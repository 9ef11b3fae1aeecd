"""The adapter alone, for programs that put it on the base model themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from training_backend.errors import UserError
from training_backend.export.model_files import TOKENIZER_FILES, copy_file
from training_backend.export.tensor_file import FLOATS, TensorFile
from training_backend.files import write_json_atomic
from training_backend.models import origin, vllm
from training_backend.models.adapters import CONFIG, WEIGHTS, Adapter
from training_backend.paths import require_free
from training_backend.worker import Reporter


def write_adapter(adapter: Adapter, out: Path, reporter: Reporter) -> None:
    """Write the adapter's weights and settings and its tokenizer into `out`.

    Its base is named as it is on the Hub, where that is known, so that PEFT finds it anywhere; of
    a base that is on this computer only, the folder's name is left.

    Raises `UserError` when the weights are damaged or not finite.
    """
    size = (adapter.folder / WEIGHTS).stat().st_size
    require_free(out, size + 50_000_000, "the adapter")
    reporter.phase("saving", detail="the adapter")
    _write_weights(adapter.folder / WEIGHTS, out / WEIGHTS)
    base = origin.of_adapter(adapter)
    # PEFT asks the Hub for this very version.
    named = {"base_model_name_or_path": base.name, "revision": base.revision or None}
    write_json_atomic(out / CONFIG, {**adapter.config, **named})
    for name in TOKENIZER_FILES:
        copy_file(adapter.folder / name, out)
    beyond = vllm.beyond(adapter.config)
    if beyond:
        reporter.warn(
            "adapter_not_for_vllm",
            "vLLM cannot serve this adapter beside its base model, since it has {what}. Export the "
            "whole model for it.",
            what=beyond,
        )


def _write_weights(source: Path, target: Path) -> None:
    """Copy the tensors, and nothing else that somebody may have written into the file's head."""
    with TensorFile(source) as file, target.open("wb") as out:
        head: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for tensor in file.tensors:
            offsets = [end, end + tensor.size]
            head[tensor.name] = {
                "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets,
            }  # fmt: skip
            end += tensor.size
        text = json.dumps(head).encode()
        text += b" " * (-len(text) % 8)
        out.write(len(text).to_bytes(8, "little") + text)
        for tensor in file.tensors:
            if tensor.dtype in FLOATS and not np.isfinite(file.read(tensor)).all():
                raise UserError(
                    "weights_not_finite",
                    "{name} in {path} holds numbers that are none, or too large.",
                    "Choose an earlier checkpoint.",
                    field="run",
                    name=tensor.name,
                    path=source,
                )
            out.write(file.read_bytes(tensor))
