"""The loss from the last hidden states on, and back to their gradient. Needs torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from trl.kernels import chunked_logprob
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

from training_backend.memory import memory_traces
from training_backend.memory.memory_traces import Growth, Head
from training_backend.memory.tracing.card import loss_kernels
from training_backend.memory.tracing.growth import Bytes, Moments, Sizes
from training_backend.memory.tracing.hollow_model import HollowModel
from training_backend.memory.tracing.storages import StorageTracker
from training_backend.training.fast_loss import Loss


def trace_loss(hollow: HollowModel, sizes: Sizes, card: bool, triton: bool) -> Head:
    """What TRL's loss allocates, on the processor or a card, there with Triton or without."""
    batch, chunk = sizes.batch, sizes.length
    text = hollow.config.get_text_config()
    width = hollow.head.weight.shape[1]

    def loss(hidden: Any, weight: Any, labels: Any) -> Any:
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
        return -scores[0].sum()

    with loss_kernels(chunk, card, triton):
        return _trace(hollow, sizes, loss, "chunk")


def trace_fast_loss(hollow: HollowModel, sizes: Sizes) -> Head:
    """What our own loss allocates, on the processor, where all tokens are learned."""
    batch, piece = sizes.batch, sizes.length

    def loss(hidden: Any, weight: Any, labels: Any) -> Any:
        places = torch.zeros(batch * piece, dtype=torch.long)
        targets = torch.zeros(batch * piece, dtype=torch.long)
        return Loss.apply(hidden.flatten(0, 1), weight, None, places, targets, 1)

    with mock.patch.object(memory_traces, "LOSS_PIECE", piece):
        return _trace(hollow, sizes, loss, "piece")


def _trace(
    hollow: HollowModel, sizes: Sizes, loss: Callable[[Any, Any, Any], Any], together: Growth
) -> Head:
    """One pass through `loss` and back, which looks at `together` tokens at a time."""
    batch, chunk = sizes.batch, sizes.length
    length = chunk + 1  # the last token predicts nothing
    alive, made = Bytes(), dict[int, tuple[Growth, float]]()
    moments = forward = Moments()

    def make(number: int, count: int, size: int) -> None:
        growth, factor = sizes.growth_in_loss(count, together)
        made[number] = growth, size / factor
        alive.add(growth, size / factor)
        moments.add(Bytes(alive.values))

    def free(number: int) -> None:
        growth, amount = made.pop(number)
        alive.add(growth, -amount)

    tracker = StorageTracker(make, free)
    with FakeTensorMode():
        weight = torch.empty(hollow.head.weight.shape, dtype=torch.bfloat16)
        width = weight.shape[1]
        hidden = torch.empty(batch, length, width, dtype=torch.bfloat16, requires_grad=True)
        labels = torch.zeros(batch, length, dtype=torch.long)
        tracker.ignore([weight, hidden, labels])
        with tracker:
            with torch.autocast("cpu", torch.bfloat16):
                found = loss(hidden, weight, labels)
            moments = backward = Moments()
            found.backward()
    return Head(forward=forward.polys(), backward=backward.polys())
