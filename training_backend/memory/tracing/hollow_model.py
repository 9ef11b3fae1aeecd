"""A model without content, known by its config alone, adapted as training does it. Needs torch."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

import bitsandbytes as bnb
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import dora
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

from training_backend.job import TrainingJob
from training_backend.memory.memory_traces import Attention, Linear, takes_fast_paths
from training_backend.models import targets
from training_backend.models.attention import implementation as attention_implementation
from training_backend.models.model_kinds import without_code
from training_backend.training import lora
from training_backend.training.fast_paths import has_plain_loss, shorten_adapters

_WINDOW = 64  # any sliding window shorter than the lengths of a traced pass gives the same shapes


class HollowModel:
    """The model of a `config.json` on the meta device, whole, and a few of its layers for a pass.

    Args:
        config: the document itself; nothing is loaded.
        job: says which layers are adapted and how weights are quantised.
    """

    def __init__(self, config: dict[str, Any], job: TrainingJob) -> None:
        self._job = job
        known = without_code(config)
        self.config = AutoConfig.for_model(str(known.pop("model_type", "")), **known)
        self.whole = _on_meta(self.config)
        self.head = self.whole.get_output_embeddings()
        self._fast = takes_fast_paths(job)
        self.fast_loss = self._fast and has_plain_loss(self.whole.requires_grad_(False))
        layers = lora.linear_layers(self.whole)
        self._adapted = {layer.name for layer in targets.adapted(layers, job.lora)}
        self._targets = (
            "all-linear"
            if job.lora.target_modules == "all-linear"
            else targets.names(layers, job.lora)
        )
        count = self.config.num_hidden_layers
        kinds = getattr(self.config, "layer_types", None) or ["layer"] * count
        self.kinds = [str(kind) for kind in kinds]
        # The first layer, one of each kind in the middle, the last.
        middle = {kind: index for index, kind in enumerate(self.kinds)}
        self.chosen = [0, *middle.values(), count - 1]

    @property
    def widths(self) -> set[int]:
        """Every number that may be a factor of a storage's size, batch, length and rank apart."""
        widths = {width for p in self.whole.parameters() for width in p.shape}
        widths |= {v for v in self.config.to_dict().values() if type(v) is int and v > 0}
        return widths | {self.head.weight.shape[0] % _CHUNKED_LOGPROB_CHUNK_SIZE}

    @property
    def has_window(self) -> bool:
        """Whether some layer looks back at no more than so many tokens."""
        if getattr(self.config, "layer_types", None):
            return any("sliding" in kind for kind in self.kinds)
        return bool(getattr(self.config, "sliding_window", None))

    def linears(self) -> tuple[tuple[Linear, ...], int]:
        """The linear layers by shape, and the elements of those that 4-bit loading quantises."""
        shapes: Counter[tuple[int, int, bool, bool]] = Counter()
        whole = get_keys_to_not_convert(self.whole)
        quantised_elements = 0
        for name, module in self.whole.named_modules():
            if not isinstance(module, (torch.nn.Linear, Conv1D)):
                continue
            rows, columns = module.weight.shape
            if isinstance(module, Conv1D):
                rows, columns = columns, rows
            quantised = not any(key == name or f".{key}." in f".{name}." for key in whole)
            quantised_elements += rows * columns * quantised
            shapes[rows, columns, name in self._adapted, quantised] += 1
        return tuple(
            Linear(rows=rows, columns=columns, count=count, adapted=adapted, quantised=quantised)
            for (rows, columns, adapted, quantised), count in sorted(shapes.items())
        ), quantised_elements

    def _reduced_config(self, attention: Attention) -> Any:
        """The config of the chosen layers alone."""
        count = len(self.kinds)
        document = self.config.to_dict()
        for key, value in document.items():
            if isinstance(value, list) and len(value) == count:
                document[key] = [value[index] for index in self.chosen]
        document["num_hidden_layers"] = len(self.chosen)
        for key in ("rope_parameters", "rope_scaling"):
            if isinstance(document.get(key), dict):
                document[key] = _plain_rope(document[key])
        if document.get("sliding_window"):
            document["sliding_window"] = 10**9 if attention == "plain" else _WINDOW
        return type(self.config).from_dict(document)

    def reduced(
        self, rank: int, card: bool, in_4bit: bool, recomputed: bool, attention: Attention
    ) -> Any:
        """The reduced model on the meta device, adapted as training does it."""
        model = _on_meta(self._reduced_config(attention))
        if in_4bit:
            _make_4bit(model, self._job)
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=rank,
            lora_dropout=self._job.lora.lora_dropout,
            target_modules=self._targets,
            use_dora=self._job.lora.use_dora,
        )
        with dora_unpacked():
            model = get_peft_model(model, config, low_cpu_mem_usage=True)
        if self._fast and not card:
            shorten_adapters(model)
        if recomputed:
            model.enable_input_require_grads()
            model.get_base_model().activation_checkpointing_enable()
        return model.train()


def _on_meta(config: Any) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            config,
            dtype=torch.bfloat16,
            attn_implementation=attention_implementation(config),
            trust_remote_code=False,
        )


def _plain_rope(parameters: dict[str, Any]) -> dict[str, Any]:
    """Positions without stretching, which looks at the content of tensors; the shapes are alike."""
    if any(isinstance(value, dict) for value in parameters.values()):
        return {
            key: _plain_rope(value) if isinstance(value, dict) else value
            for key, value in parameters.items()
        }
    kept = ("rope_theta", "partial_rotary_factor")
    return {"rope_type": "default", **{k: parameters[k] for k in kept if k in parameters}}


def _make_4bit(model: Any, job: TrainingJob) -> None:
    """Put bitsandbytes' layers where transformers would."""
    whole = get_keys_to_not_convert(model)
    for name, module in list(model.named_modules()):
        if not isinstance(module, (torch.nn.Linear, Conv1D)) or any(
            key == name or f".{key}." in f".{name}." for key in whole
        ):
            continue
        shape = (
            module.weight.shape if isinstance(module, torch.nn.Linear) else module.weight.T.shape
        )
        layer = bnb.nn.Linear4bit(
            shape[1],
            shape[0],
            bias=module.bias is not None,
            compute_dtype=_compute_dtype(job),
            quant_type=job.quantization.bnb_4bit_quant_type,
            device="meta",
        )
        layer.compute_type_is_set = True
        if module.bias is not None:
            layer.bias = torch.nn.Parameter(layer.bias.to(torch.bfloat16), requires_grad=False)
        model.set_submodule(name, layer)
    model.is_loaded_in_4bit = True
    model.requires_grad_(False)


def _compute_dtype(job: TrainingJob) -> Any:
    wide = job.quantization.bnb_4bit_compute_dtype == "float32"
    return torch.float32 if wide else torch.bfloat16


def give_storage(model: Any, in_4bit: bool) -> None:
    """Exchange the parameters on the meta device for fake ones of their size, tied ones once."""
    made: dict[int, Any] = {}
    for name, module in model.named_modules():
        for tensors in (module._parameters, module._buffers):
            for key, old in tensors.items():
                if old is None:
                    continue
                if id(old) not in made:
                    quantised = (
                        in_4bit and isinstance(module, bnb.nn.Linear4bit) and key == "weight"
                    )
                    if quantised:
                        new = _packed(module)
                    else:
                        dtype = torch.float32 if ".lora_" in name else old.dtype
                        new = torch.empty(old.shape, dtype=dtype)
                    if tensors is module._parameters and not quantised:
                        new = torch.nn.Parameter(new, requires_grad=old.requires_grad)
                    made[id(old)] = new, old  # holding the old one keeps its id from being reused
                tensors[key] = made[id(old)][0]


def _packed(layer: Any) -> Any:
    """A 4-bit weight with double quantisation; without it the step allocates less by a trifle."""
    count = layer.in_features * layer.out_features
    blocks = math.ceil(count / 64)
    nested = bnb.functional.QuantState(
        absmax=torch.empty(math.ceil(blocks / 256)),
        code=torch.empty(256),
        blocksize=256,
        dtype=torch.float32,
    )
    weight = torch.nn.Parameter(torch.empty((count + 1) // 2, 1, dtype=torch.uint8), False)
    weight.compress_statistics = True
    weight.quant_type = layer.weight.quant_type
    weight.quant_state = bnb.functional.QuantState(
        absmax=torch.empty(blocks, dtype=torch.uint8),
        shape=torch.Size((layer.out_features, layer.in_features)),
        code=torch.empty(16),
        blocksize=64,
        quant_type=layer.weight.quant_type,
        dtype=torch.bfloat16,
        offset=torch.empty(()),
        state2=nested,
    )
    return weight


@contextlib.contextmanager
def dora_unpacked() -> Iterator[None]:
    """DoRA unpacks weights for the lengths of their rows; of ours, which are empty, the shape."""
    real = dora.dequantize_module_weight

    def unpacked(layer: Any) -> Any:
        shape = layer.out_features, layer.in_features
        if tuple(layer.weight.shape) == shape and type(layer.weight).__name__ != "Params4bit":
            return real(layer)
        return torch.empty(shape, dtype=torch.bfloat16, device=layer.weight.device)

    with (
        mock.patch.object(dora, "deepcopy", lambda layer: layer),
        mock.patch.object(dora, "dequantize_module_weight", unpacked),
    ):
        yield
