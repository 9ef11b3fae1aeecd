"""The loss of a language model on a processor: only of the tokens that are learned.

Without Triton, TRL's own (`trl.kernels.chunked_logprob`) scores every token, padding and questions
too, computes the scores of the whole vocabulary once more in the backward pass, and adds up
gradients in 32 bits. This one leaves out the tokens that are not learned and works on a few at a
time, so that what it holds stays small; since a loss is the last thing that is computed, its
gradient is, too, while the scores are at hand.
"""

from __future__ import annotations

from typing import Any

import torch

from training_backend.data.formatting import IGNORED
from training_backend.memory import memory_traces


def learned_loss(hidden: Any, head: Any, labels: Any, count: Any = None) -> Any:
    """Mean negative log-likelihood of the learned tokens, each told from those before it.

    Args:
        hidden: [batch, length, width], the last hidden states.
        head: the layer with `weight` [vocabulary, width] and `bias` that scores the vocabulary;
            it is not trained itself.
        labels: [batch, length]; `IGNORED` where a token is not learned.
        count: by how many tokens to divide; by default by those that are learned here.
    """
    targets = torch.full_like(labels, IGNORED)
    targets[:, :-1] = labels[:, 1:]
    targets = targets.flatten()
    places = (targets != IGNORED).nonzero().squeeze(1)
    count = max(1, len(places) if count is None else int(count))
    return Loss.apply(hidden.flatten(0, 1), head.weight, head.bias, places, targets[places], count)


class Loss(torch.autograd.Function):  # type: ignore[misc]
    """The loss of the hidden states [tokens, width] at `places`, with its gradient."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Any, weight: Any, bias: Any, places: Any, targets: Any, count: int
    ) -> Any:
        kind = hidden.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        weight = weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
        gradient = None
        if ctx.needs_input_grad[0]:
            gradient = torch.empty(len(places), hidden.shape[1], dtype=dtype, device=hidden.device)
        total = torch.zeros((), device=hidden.device)
        for first in range(0, len(places), memory_traces.LOSS_PIECE):
            piece = slice(first, first + memory_traces.LOSS_PIECE)
            target = targets[piece].unsqueeze(1)
            scores = torch.nn.functional.linear(hidden[places[piece]].to(dtype), weight, bias)
            # In 16 bits as the model gives them; from here on in 32.
            scores = torch.log_softmax(scores, 1, dtype=torch.float32)
            total -= scores.gather(1, target).sum()
            if gradient is not None:
                # Of -log p[target] by the score of token j: p[j], less 1 at the target.
                scores.exp_().scatter_add_(1, target, scores.new_full(target.shape, -1.0))
                torch.mm(scores.div_(count).to(dtype), weight, out=gradient[piece])
        ctx.shape, ctx.dtype = hidden.shape, hidden.dtype
        ctx.save_for_backward(places, gradient)
        return total / count

    @staticmethod
    def backward(ctx: Any, factor: Any) -> Any:
        places, gradient = ctx.saved_tensors
        whole = torch.zeros(ctx.shape, dtype=ctx.dtype, device=places.device)
        whole[places] = (gradient * factor).to(ctx.dtype)
        return whole, None, None, None, None, None
