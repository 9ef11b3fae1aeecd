"""What one training step of a model allocates, found out by running it on tensors without content.

The model is built from its config alone, a few layers of it, with adapters and 4-bit layers as
training makes them, and does a forward and a backward pass under PyTorch's `FakeTensorMode`:
shapes and lifetimes are real, numbers are never computed. Every storage is followed from its
first use until it is freed. Batch, length and rank are prime numbers that no width of the model
is divisible by, so the factors of a storage's size tell how it grows with them. One pass thus
gives the memory for all batch sizes, lengths and ranks; `memory_traces` says what is kept of it.

Two things cannot run on a computer without a card and are written down instead: what the
attention kernels of a card keep (`_CardAttention`), and that Triton works on the logits in place
(`_card_head`).

    python -m training_backend.trace_model --catalogue     trace what ships in resources/
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import warnings
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from unittest import mock

import bitsandbytes as bnb
import numpy as np
import peft
import torch
import transformers
import trl
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import dora
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM, masking_utils
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert
from trl.kernels import chunked_logprob
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

from training_backend import curated, hub_models, lora, memory_traces, targets
from training_backend.attention import implementation as attention_implementation
from training_backend.errors import StopRequested, UserError
from training_backend.job import TrainingJob, parse_job
from training_backend.memory_traces import (
    GROWTHS,
    Attention,
    Growth,
    Head,
    Linear,
    Poly,
    Step,
    Trace,
    growth_values,
)
from training_backend.model_config import config_of, demo_config, remember_config
from training_backend.model_kinds import without_code

_BATCHES = (5, 7, 11, 13, 17, 19, 23)
_RANKS = (29, 31, 37, 41, 43, 47, 53, 59, 61, 67)
_LENGTHS = (1009, 1013, 1019, 1021, 1031, 1033, 1039)
_SETTINGS = np.array(
    [
        list(growth_values(batch, length, rank, accumulates).values())
        for batch in (1, 4, 32)
        for length in (64, 256, 1024, 2048, 4096, 16384, 131072)
        for rank in (1, 8, 32, 128, 1024)
        for accumulates in (True, False)
    ]
).T
_WINDOW = 64  # any sliding window shorter than the lengths above gives the same shapes


def trace(
    config: dict[str, Any],
    job: TrainingJob,
    on_progress: Callable[[float], None] = lambda share: None,
    cards: tuple[bool, ...] = (False, True),
) -> Trace:
    """Trace the model of a `config.json` with the adapted layers of `job`. Takes seconds.

    Args:
        config: the document itself; nothing is loaded.
        on_progress: told the share that is done.
        cards: for cards (True), for the processor (False), or for both.

    Raises:
        UserError: `model_not_traceable`, about field `model.id`.
    """
    try:
        with _quiet():
            return _Tracer(config, job).trace(on_progress, cards)
    except (UserError, StopRequested):
        raise
    except Exception as error:
        raise UserError(
            "model_not_traceable",
            "The memory of this model ({kind}) cannot be worked out: {reason}.",
            "Start with a small batch and watch the memory chart.",
            field="model.id",
            kind=str(config.get("model_type", "unknown")),
            reason=(str(error).strip().splitlines() or [type(error).__name__])[0][:200],
        ) from error


# --- what is allocated -----------------------------------------------------------------------


class StorageTracker(TorchDispatchMode):  # type: ignore[misc]
    """Follows every storage that an operation returns until it is freed.

    `live_bytes` and `peak_bytes` count what was made while the mode was on. It serves tensors
    with content just as well. What a kernel takes for itself inside of an operation is not
    seen, but for bitsandbytes' product, which unpacks the whole weight.

    Args:
        on_made: told a number for the storage, its elements and its bytes.
        on_freed: told that number.
    """

    def __init__(
        self,
        on_made: Callable[[int, int, int], None] = lambda number, count, size: None,
        on_freed: Callable[[int], None] = lambda number: None,
    ) -> None:
        super().__init__()
        self.live_bytes = self.peak_bytes = 0
        self._on_made, self._on_freed = on_made, on_freed
        self._known: dict[int, int] = {}
        self._numbers = itertools.count(1)
        self._kept: list[Any] = []

    def ignore(self, tensors: Iterable[Any]) -> None:
        """Leave these out, which were there before."""
        for tensor in tensors:
            self._kept.append(tensor.untyped_storage())
            self._known[self._kept[-1]._cdata] = 0

    def number_of(self, tensor: Any) -> int:
        return self._known.get(tensor.untyped_storage()._cdata, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        unpacked = 0
        if func is torch.ops.bitsandbytes.gemm_4bit.default:
            count = math.prod(args[2])
            unpacked = next(self._numbers)
            self._made(unpacked, count, count * args[0].element_size())
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._see(value)
        if unpacked:
            self._freed(0, unpacked, count * args[0].element_size())
        return result

    def _see(self, tensor: Any) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or not size:
            return
        number = self._known[key] = next(self._numbers)
        weakref.finalize(storage, self._freed, key, number, size)
        self._made(number, size // tensor.element_size(), size)

    def _made(self, number: int, count: int, size: int) -> None:
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        self._on_made(number, count, size)

    def _freed(self, key: int, number: int, size: int) -> None:
        self._known.pop(key, None)
        self.live_bytes -= size
        self._on_freed(number)


class _PassTracker(StorageTracker):
    """Answers too what is asked of the content: whether rows are full, or padded, so masked."""

    def __init__(self, *handlers: Callable[..., None], full_rows: bool) -> None:
        super().__init__(*handlers)
        self._full_rows = full_rows

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].dtype is torch.bool:
            return self._full_rows
        return super().__torch_dispatch__(func, types, args, kwargs)


@dataclass(frozen=True)
class _Event:
    """A storage made in a part of the pass, or freed, or a part that begins."""

    kind: Literal["made", "freed", "begins"]
    number: int = 0
    place: str = ""
    growth: Growth = "1"
    amount: float = 0.0


class _Sum:
    """Bytes by growth; sums and differences of them."""

    def __init__(self, values: Iterable[float] = ()) -> None:
        self.values = list(values) or [0.0] * len(GROWTHS)

    def add(self, growth: Growth, amount: float) -> None:
        self.values[GROWTHS.index(growth)] += amount

    def __add__(self, other: _Sum) -> _Sum:
        return _Sum(a + b for a, b in zip(self.values, other.values, strict=True))

    def __sub__(self, other: _Sum) -> _Sum:
        return _Sum(a - b for a, b in zip(self.values, other.values, strict=True))

    def exceeds(self, other: _Sum) -> bool:
        """Whether it is as much or more for every batch, length and rank."""
        return all(a >= b for a, b in zip(self.values, other.values, strict=True))

    def poly(self) -> Poly:
        return {
            growth: round(amount, 3)
            for growth, amount in zip(GROWTHS, self.values, strict=True)
            if round(amount, 3)
        }


class _Moments:
    """The moments that no other moment always exceeds."""

    def __init__(self) -> None:
        self.kept: list[_Sum] = []

    def add(self, moment: _Sum) -> None:
        if any(other.exceeds(moment) for other in self.kept):
            return
        self.kept = [other for other in self.kept if not moment.exceeds(other)] + [moment]

    def polys(self) -> tuple[Poly, ...]:
        """Of these, the ones that take the most for some of the settings that people use."""
        sizes = np.array([moment.values for moment in self.kept]) @ _SETTINGS
        return tuple(self.kept[index].poly() for index in sorted(set(sizes.argmax(0))))


# --- the model -------------------------------------------------------------------------------


class _Tracer:
    def __init__(self, config: dict[str, Any], job: TrainingJob) -> None:
        self._job = job
        self._document = config
        known = without_code(config)
        self._config = AutoConfig.for_model(str(known.pop("model_type", "")), **known)
        self._whole = self._on_meta(self._config)
        self._head = self._whole.get_output_embeddings()
        layers = lora.linear_layers(self._whole)
        self._adapted = {layer.name for layer in targets.adapted(layers, job.lora)}
        self._targets = (
            "all-linear"
            if job.lora.target_modules == "all-linear"
            else targets.names(layers, job.lora)
        )
        count = self._config.num_hidden_layers
        kinds = getattr(self._config, "layer_types", None) or ["layer"] * count
        self._kinds = [str(kind) for kind in kinds]
        # The first layer, one of each kind in the middle, the last.
        middle = {kind: index for index, kind in enumerate(self._kinds)}
        self._chosen = [0, *middle.values(), count - 1]
        self._choose_sizes()

    def _choose_sizes(self) -> None:
        """Primes that divide no width of the model."""
        widths = {width for p in self._whole.parameters() for width in p.shape}
        widths |= {v for v in self._config.to_dict().values() if type(v) is int and v > 0}
        widths |= {self._head.weight.shape[0] % _CHUNKED_LOGPROB_CHUNK_SIZE}

        def first(primes: tuple[int, ...]) -> int:
            return next(p for p in primes if all(width % p for width in widths if width > 1))

        self._batch, self._rank, self._length = first(_BATCHES), first(_RANKS), first(_LENGTHS)

    def trace(self, on_progress: Callable[[float], None], cards: tuple[bool, ...]) -> Trace:
        attentions: list[Attention] = ["plain", "mask"]
        window = getattr(self._config, "sliding_window", None)
        if any("sliding" in kind for kind in self._kinds) or (
            window and not getattr(self._config, "layer_types", None)
        ):
            attentions.append("window")
        variants = list(itertools.product(cards, (False, True), (False, True), attentions))
        steps = {}
        for done, (card, in_4bit, recomputed, attention) in enumerate(variants):
            on_progress(done / len(variants))
            name = memory_traces.step_name(card, in_4bit, recomputed, attention)
            steps[name] = self._step(card, in_4bit, recomputed, attention)
        linears, quantised = self._linears()
        return Trace(
            format=memory_traces.FORMAT,
            fingerprint=memory_traces.fingerprint(self._document, self._job),
            versions=_versions(),
            model_type=self._config.model_type,
            parameters=sum(p.numel() for p in self._whole.parameters()),
            layers=tuple(self._kinds),
            linears=linears,
            other_weights=sum(p.numel() for p in self._whole.parameters()) - quantised,
            hidden_size=self._head.weight.shape[1],
            vocabulary=self._head.weight.shape[0],
            sliding_window=window if "window" in attentions else None,
            steps=steps,
            heads={
                "cpu": self._head_moments(card=False, triton=False),
                "card": self._head_moments(card=True, triton=True),
                "card_without_triton": self._head_moments(card=True, triton=False),
            },
        )

    def _linears(self) -> tuple[tuple[Linear, ...], int]:
        """The linear layers by shape, and the elements of those that 4-bit loading quantises."""
        shapes: Counter[tuple[int, int, bool, bool]] = Counter()
        whole = get_keys_to_not_convert(self._whole)
        quantised_elements = 0
        for name, module in self._whole.named_modules():
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

    @staticmethod
    def _on_meta(config: Any) -> Any:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                config,
                dtype=torch.bfloat16,
                attn_implementation=attention_implementation(config),
                trust_remote_code=False,
            )

    def _reduced_config(self, attention: Attention) -> Any:
        """The config of the chosen layers alone."""
        count = len(self._kinds)
        document = self._config.to_dict()
        for key, value in document.items():
            if isinstance(value, list) and len(value) == count:
                document[key] = [value[index] for index in self._chosen]
        document["num_hidden_layers"] = len(self._chosen)
        for key in ("rope_parameters", "rope_scaling"):
            if isinstance(document.get(key), dict):
                document[key] = _plain_rope(document[key])
        if document.get("sliding_window"):
            document["sliding_window"] = 10**9 if attention == "plain" else _WINDOW
        return type(self._config).from_dict(document)

    def _model(self, in_4bit: bool, recomputed: bool, attention: Attention) -> Any:
        """The reduced model on the meta device, adapted as training does it."""
        model = self._on_meta(self._reduced_config(attention))
        if in_4bit:
            _make_4bit(model, self._job)
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=self._rank,
            lora_dropout=self._job.lora.lora_dropout,
            target_modules=self._targets,
            use_dora=self._job.lora.use_dora,
        )
        with _dora_unpacked():
            model = get_peft_model(model, config, low_cpu_mem_usage=True)
        if recomputed:
            model.enable_input_require_grads()
            model.get_base_model().activation_checkpointing_enable()
        return model.train()

    # --- one pass ----------------------------------------------------------------------------

    def _step(self, card: bool, in_4bit: bool, recomputed: bool, attention: Attention) -> Step:
        model = self._model(in_4bit, recomputed, attention)
        events: list[_Event] = []
        place = "start"

        def begin(name: str) -> None:
            nonlocal place
            place = name
            events.append(_Event("begins", place=name))

        def made(number: int, count: int, size: int) -> None:
            growth, factor = self._growth(count)
            events.append(_Event("made", number, place, growth, size / factor))

        tracker = _PassTracker(
            made,
            lambda number: events.append(_Event("freed", number)),
            full_rows=attention != "mask",
        )
        layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
        assert len(layers) == len(self._chosen)
        for index, layer in enumerate(layers):
            layer.register_forward_pre_hook(_marks(begin, index), with_kwargs=True)
        shape = (self._batch, self._length)
        # By default transformers takes fake tensors to have masks of every kind.
        seen = mock.patch.object(masking_utils, "is_tracing", return_value=False)
        with FakeTensorMode(), seen, _attention(card), _dora_unpacked():
            _give_storage(model, in_4bit, self._job)
            tracker.ignore(itertools.chain(model.parameters(), model.buffers()))
            with tracker:
                ids, labels, mask = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
                with torch.autocast("cpu", torch.bfloat16):
                    backbone = model.get_base_model().base_model
                    hidden = backbone(input_ids=ids, attention_mask=mask, use_cache=False)[0]
                    begin("end")
                    loss = _NoHead.apply(hidden).sum()
                del hidden, ids, labels, mask
                begin("turn")
                begin(f"back {len(layers) - 1}")
                loss.backward()
            gradients = {tracker.number_of(p.grad) for p in model.parameters() if p.requires_grad}
        return self._summed_up(events, gradients)

    def _growth(self, count: int) -> tuple[Growth, float]:
        """What the number of elements of a storage grows with, and by what it is to be divided."""
        batch, rank, length = self._batch, self._rank, self._length
        lengths = 0
        while count % length == 0 and lengths < 2:
            count //= length
            lengths += 1
        by_batch, by_rank = count % batch == 0, count % rank == 0
        if lengths == 0:
            if by_rank:
                return "rank", float(rank)
            # A convolution looks at a few tokens more than there are.
            longer = next((length + n for n in (1, 2, 3) if count % (batch * (length + n)) == 0), 0)
            return ("tokens", float(batch * longer)) if longer else ("1", 1.0)
        if lengths == 2:
            if by_batch:
                return "batch*length^2", float(batch * length**2)
            return "length^2", float(length**2)
        if by_rank:
            return "tokens*rank", float(batch * length * rank)
        return ("tokens", float(batch * length)) if by_batch else ("length", float(length))

    def _summed_up(self, events: list[_Event], gradients: set[int]) -> Step:
        """What is alive at the moments that matter, found by going through the pass again."""
        last = len(self._chosen) - 1
        moments = {name: _Moments() for name in ("forward", "backward", "bottom")}
        alive: dict[str, _Sum] = defaultdict(_Sum)  # by the place where it was made
        made: dict[int, _Event] = {}
        states: dict[str, tuple[dict[str, _Sum], _Sum]] = {}
        place = "start"

        def apart(index: int) -> _Sum:
            """All but what the layers before this one keep, which `vram` adds."""
            return sum(alive.values(), _Sum()) - sum((alive[str(i)] for i in range(index)), _Sum())

        for event, following in itertools.pairwise([*events, _Event("freed")]):
            if event.kind == "begins":
                place = event.place
                alive["gradients"] = _Sum()  # those of the layers above are counted by `vram`
                if place in ("end", "turn"):
                    kept = {
                        self._kinds[original]: alive[str(index)] + _Sum()
                        for index, original in enumerate(self._chosen[1:-1], 1)
                    }
                    states[place] = kept, alive["0"] - kept[self._kinds[0]]
                    moments[place] = _Moments()
                    moments[place].add(apart(last))
            elif event.kind == "freed":
                gone = made.pop(event.number, None)
                if gone is not None:
                    alive[gone.place].add(gone.growth, -gone.amount)
            else:
                if event.number in gradients:
                    alive["gradients"].add("gradients*rank", event.amount)
                else:
                    made[event.number] = event
                    alive[event.place].add(event.growth, event.amount)
                if following.kind == "made":
                    continue  # there is more yet to come
                if place == str(last) or place == "end":
                    moments["forward"].add(apart(last))
                elif place == "back 0":
                    moments["bottom"].add(apart(0))
                elif place.startswith("back ") and place != "back -1":
                    moments["backward"].add(apart(int(place.removeprefix("back "))))
        (held, first_held), (kept, first_kept) = states["end"], states["turn"]
        return Step(
            held={kind: amount.poly() for kind, amount in held.items()},
            kept={kind: amount.poly() for kind, amount in kept.items()},
            first_held=first_held.poly(),
            first_kept=first_kept.poly(),
            **{name: found.polys() for name, found in moments.items()},
        )

    def _head_moments(self, card: bool, triton: bool) -> Head:
        """TRL's loss from the last hidden states on, and back to their gradient."""
        batch, chunk = self._batch, self._length
        length = chunk + 1  # the last token predicts nothing
        alive, made = _Sum(), dict[int, tuple[Growth, float]]()
        moments = forward = _Moments()

        def make(number: int, count: int, size: int) -> None:
            growth: Growth = "1"
            factor = 1
            if count % batch == 0 and (count % chunk == 0 or count % length == 0):
                growth, factor = "tokens", batch * (chunk if count % chunk == 0 else length)
            elif count % chunk == 0:
                growth, factor = "chunk", chunk
            made[number] = growth, size / factor
            alive.add(growth, size / factor)
            moments.add(_Sum(alive.values))

        def free(number: int) -> None:
            growth, amount = made.pop(number)
            alive.add(growth, -amount)

        tracker = StorageTracker(make, free)
        text = self._config.get_text_config()
        vocabulary, width = self._head.weight.shape
        with FakeTensorMode(), _loss_kernels(chunk, card, triton):
            weight = torch.empty(vocabulary, width, dtype=torch.bfloat16)
            hidden = torch.empty(batch, length, width, dtype=torch.bfloat16, requires_grad=True)
            labels = torch.zeros(batch, length, dtype=torch.long)
            tracker.ignore([weight, hidden, labels])
            with tracker:
                with torch.autocast("cpu", torch.bfloat16):
                    rows = torch.zeros(batch * chunk, dtype=torch.long)
                    states, targets = hidden[:, :-1], labels[:, 1:]
                    if triton:  # it scores only the tokens that are learned; all, at the most
                        states, targets = states[rows, rows], targets[rows, rows]
                    else:
                        states = states.reshape(-1, width)
                        targets = targets.clamp(min=0).reshape(-1)
                    found = chunked_logprob.ChunkedLogProbFunction.apply(
                        states, weight, None, targets, 1.0, _CHUNKED_LOGPROB_CHUNK_SIZE,
                        getattr(text, "final_logit_softcapping", None), 1.0,
                        ("log_probs", "entropy", "is_top1"),
                    )  # fmt: skip
                    scores = [x.view(batch, chunk) for x in found if x is not None]
                    loss = -scores[0].sum()
                    del states, targets, found, scores, rows
                moments = backward = _Moments()
                loss.backward()
        return Head(forward=forward.polys(), backward=backward.polys())


def _versions() -> dict[str, str]:
    return {m.__name__: m.__version__ for m in (torch, transformers, peft, trl, bnb)}


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


def _give_storage(model: Any, in_4bit: bool, job: TrainingJob) -> None:
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


def _marks(begin: Callable[[str], None], index: int) -> Callable[..., None]:
    """A hook that says when a layer begins, and when the backward pass comes to the one below."""

    def hook(module: Any, args: Any, kwargs: Any) -> None:
        begin(str(index))
        hidden = args[0] if args else kwargs["hidden_states"]
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: begin(f"back {index - 1}"))

    return hook


class _NoHead(torch.autograd.Function):  # type: ignore[misc]
    """In place of the loss, which `_head_moments` looks at."""

    @staticmethod
    def forward(ctx: Any, hidden: Any) -> Any:
        ctx.shape, ctx.dtype = hidden.shape, hidden.dtype
        return hidden.new_empty(())

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return torch.empty(ctx.shape, dtype=ctx.dtype)


# --- what depends on the device ----------------------------------------------------------------


@contextlib.contextmanager
def _attention(card: bool) -> Iterator[None]:
    if not card:
        yield
        return
    ALL_ATTENTION_FUNCTIONS["sdpa"] = _card_attention
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]


def _card_attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any
) -> tuple[Any, None]:
    """What `sdpa` does on a card: FlashAttention without a mask, else the other kernel."""
    groups = query.shape[1] // key.shape[1]
    if attention_mask is not None and groups > 1:  # only FlashAttention shares keys
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    query, key, value = (x.to(torch.bfloat16) for x in (query, key, value))
    answer = _CardAttention.apply(query, key, value, attention_mask)
    return answer.transpose(1, 2).contiguous(), None


class _CardAttention(torch.autograd.Function):  # type: ignore[misc]
    """The storages of FlashAttention 2 and of the memory-efficient kernel, as PyTorch calls them.

    Both keep query, key, value, the answer and one number a row (fp32). A mask is turned into
    numbers anew in every layer and kept. The backward pass of FlashAttention adds up the
    gradient of the query in fp32, and those of shared keys and values one by one.
    """

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, mask: Any) -> Any:
        batch, heads, length, _ = query.shape
        # Laid out as [batch, length, heads, width], so that the transposition after it is free.
        answer = query.new_empty(batch, length, heads, value.shape[-1]).transpose(1, 2)
        bias = None if mask is None else torch.empty(mask.shape, dtype=query.dtype)
        rows = torch.empty(batch, heads, length)
        ctx.save_for_backward(query, key, value, bias, answer, rows)
        return answer

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        query, key, value, bias, _, rows = ctx.saved_tensors
        like_query = [torch.empty(query.shape, dtype=query.dtype)]
        held = [torch.empty(rows.shape)]
        if bias is None:
            held.append(torch.empty(query.shape))
            if key.shape[1] < query.shape[1]:
                held += [torch.empty(query.shape, dtype=query.dtype) for _ in range(2)]
        like_keys = [torch.empty(x.shape, dtype=x.dtype) for x in (key, value)]
        return *like_query, *like_keys, None


class _NoKernel:
    """In place of a Triton kernel, which works in place."""

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *args, **kwargs: None


@contextlib.contextmanager
def _loss_kernels(chunk: int, card: bool, triton: bool) -> Iterator[None]:
    """TRL's loss in chunks of so many tokens, with what a card would run in place."""
    changes: dict[str, Any] = {"TOKEN_CHUNK_SIZE": chunk}
    if card:  # its product adds to what is there
        changes["_addmm_fp32"] = lambda total, left, right: None
    if triton:
        changes |= {
            "_use_triton": lambda device: True,
            "_forward_kernel": _NoKernel(),
            "_backward_kernel": _NoKernel(),
            "triton": SimpleNamespace(cdiv=lambda count, size: -(-count // size)),
        }
    with contextlib.ExitStack() as stack:
        for name, value in changes.items():
            stack.enter_context(mock.patch.object(chunked_logprob, name, value, create=True))
        yield


@contextlib.contextmanager
def _dora_unpacked() -> Iterator[None]:
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What libraries say of a model without weights is not for people."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# --- for jobs, and for the catalogue -------------------------------------------------------------


def trace_job(
    job: TrainingJob, card: bool, on_progress: Callable[[float], None] = lambda share: None
) -> Trace:
    """Trace a job's model and keep the document; of a model on the Hub, fetch its config first.

    Args:
        card: for a card, else for the processor; what was traced for the other stays.

    Raises:
        UserError: the model is not known, not reachable, or cannot be traced.
    """
    config = config_of(job)
    if config is None:
        config = hub_models.fetch_config(job.model.id.strip(), job.model.revision)
        remember_config(job.model.id.strip(), job.model.revision, config)
    found = trace(config, job, on_progress, (card,))
    known = memory_traces.find(found.fingerprint)
    if known is not None and known.versions == found.versions:
        found = found.model_copy(update={"steps": {**known.steps, **found.steps}})
    memory_traces.store(found)
    return found


def trace_catalogue(folder: Path) -> None:
    """Trace the demo model and the whole catalogue with all linear layers adapted.

    What was traced with the libraries that are installed is left as it is.
    """
    job = parse_job({"model": {"id": "demo"}, "dataset": {"path": "none"}})
    assert isinstance(job, TrainingJob)
    configs = {"demo": demo_config()}
    configs |= {entry.id: curated.config(entry.id) or {} for entry in curated.models()}
    kept = set()
    for name, config in configs.items():
        print_ = memory_traces.fingerprint(config, job)
        if print_ in kept:
            continue
        kept.add(print_)
        stored = memory_traces.read(folder / f"{print_}.json")
        if stored is not None and stored.versions == _versions():
            continue
        try:
            found = trace(config, job)
        except UserError as error:
            print(f"{name}: {error}", flush=True)
            continue
        memory_traces.store(found, folder)
        print(f"{name}: {found.parameters:,} parameters", flush=True)
    for path in folder.glob("*.json"):
        if path.stem not in kept:
            path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training_backend.trace_model")
    parser.add_argument("--catalogue", action="store_true", required=True)
    parser.parse_args()
    trace_catalogue(Path(__file__).parents[1] / "resources" / "memory_traces")


if __name__ == "__main__":
    main()
