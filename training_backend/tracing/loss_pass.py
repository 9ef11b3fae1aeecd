"""TRL's loss from the last hidden states on, and back to their gradient. Needs torch."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from trl.kernels import chunked_logprob
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

from training_backend.memory_traces import Growth, Head
from training_backend.tracing.card import loss_kernels
from training_backend.tracing.growth import Bytes, Moments, Sizes
from training_backend.tracing.hollow_model import HollowModel
from training_backend.tracing.storages import StorageTracker


def trace_loss(hollow: HollowModel, sizes: Sizes, card: bool, triton: bool) -> Head:
    """What the loss allocates, on the processor or a card, there with Triton or without."""
    batch, chunk = sizes.batch, sizes.length
    length = chunk + 1  # the last token predicts nothing
    alive, made = Bytes(), dict[int, tuple[Growth, float]]()
    moments = forward = Moments()

    def make(number: int, count: int, size: int) -> None:
        growth, factor = sizes.growth_in_loss(count)
        made[number] = growth, size / factor
        alive.add(growth, size / factor)
        moments.add(Bytes(alive.values))

    def free(number: int) -> None:
        growth, amount = made.pop(number)
        alive.add(growth, -amount)

    tracker = StorageTracker(make, free)
    text = hollow.config.get_text_config()
    vocabulary, width = hollow.head.weight.shape
    with FakeTensorMode(), loss_kernels(chunk, card, triton):
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
            moments = backward = Moments()
            loss.backward()
    return Head(forward=forward.polys(), backward=backward.polys())
