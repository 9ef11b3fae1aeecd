"""One pass through the layers of a model, and what is alive at its moments. Needs torch."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import masking_utils
from transformers.modeling_layers import GradientCheckpointingLayer

from training_backend.memory.memory_traces import Attention, Growth, Step
from training_backend.memory.tracing.card import card_attention
from training_backend.memory.tracing.growth import Bytes, Moments, Sizes
from training_backend.memory.tracing.hollow_model import HollowModel, dora_unpacked, give_storage
from training_backend.memory.tracing.storages import StorageTracker


@dataclass(frozen=True)
class _Event:
    """A storage made in a part of the pass, or freed, or a part that begins."""

    kind: Literal["made", "freed", "begins"]
    number: int = 0
    place: str = ""
    growth: Growth = "1"
    amount: float = 0.0


def trace_step(
    hollow: HollowModel,
    sizes: Sizes,
    card: bool,
    in_4bit: bool,
    recomputed: bool,
    attention: Attention,
) -> Step:
    """One forward and backward pass through a few layers, without the loss."""
    model = hollow.reduced(sizes.rank, card, in_4bit, recomputed, attention)
    events: list[_Event] = []
    place = "start"

    def begin(name: str) -> None:
        nonlocal place
        place = name
        events.append(_Event("begins", place=name))

    def made(number: int, count: int, size: int) -> None:
        growth, factor = sizes.growth(count)
        events.append(_Event("made", number, place, growth, size / factor))

    tracker = _PassTracker(
        made,
        lambda number: events.append(_Event("freed", number)),
        full_rows=attention != "mask",
    )
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    assert len(layers) == len(hollow.chosen)
    for index, layer in enumerate(layers):
        layer.register_forward_pre_hook(_marks(begin, index), with_kwargs=True)
    shape = (sizes.batch, sizes.length)
    # By default transformers takes fake tensors to have masks of every kind.
    seen = mock.patch.object(masking_utils, "is_tracing", return_value=False)
    with FakeTensorMode(), seen, card_attention(card), dora_unpacked():
        give_storage(model, in_4bit)
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
    return _summed_up(hollow, events, gradients)


def _summed_up(hollow: HollowModel, events: list[_Event], gradients: set[int]) -> Step:
    """What is alive at the moments that matter, found by going through the pass again."""
    last = len(hollow.chosen) - 1
    moments = {name: Moments() for name in ("forward", "backward", "bottom")}
    alive: dict[str, Bytes] = defaultdict(Bytes)  # by the place where it was made
    made: dict[int, _Event] = {}
    states: dict[str, tuple[dict[str, Bytes], Bytes]] = {}
    place = "start"

    def apart(index: int) -> Bytes:
        """All but what the layers before this one keep, which `memory_step` adds."""
        return sum(alive.values(), Bytes()) - sum((alive[str(i)] for i in range(index)), Bytes())

    for event, following in itertools.pairwise([*events, _Event("freed")]):
        if event.kind == "begins":
            place = event.place
            alive["gradients"] = Bytes()  # those of the layers above are counted by `memory_step`
            if place in ("end", "turn"):
                kept = {
                    hollow.kinds[original]: alive[str(index)] + Bytes()
                    for index, original in enumerate(hollow.chosen[1:-1], 1)
                }
                states[place] = kept, alive["0"] - kept[hollow.kinds[0]]
                moments[place] = Moments()
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


class _PassTracker(StorageTracker):
    """Answers too what is asked of the content: whether rows are full, or padded, so masked."""

    def __init__(self, *handlers: Callable[..., None], full_rows: bool) -> None:
        super().__init__(*handlers)
        self._full_rows = full_rows

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].dtype is torch.bool:
            return self._full_rows
        return super().__torch_dispatch__(func, types, args, kwargs)


def _marks(begin: Callable[[str], None], index: int) -> Callable[..., None]:
    """A hook that says when a layer begins, and when the backward pass comes to the one below."""

    def hook(module: Any, args: Any, kwargs: Any) -> None:
        begin(str(index))
        hidden = args[0] if args else kwargs["hidden_states"]
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: begin(f"back {index - 1}"))

    return hook


class _NoHead(torch.autograd.Function):  # type: ignore[misc]
    """In place of the loss, which `loss_pass` looks at."""

    @staticmethod
    def forward(ctx: Any, hidden: Any) -> Any:
        ctx.shape, ctx.dtype = hidden.shape, hidden.dtype
        return hidden.new_empty(())

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return torch.empty(ctx.shape, dtype=ctx.dtype)
