"""What cannot run on a computer without a card, and is written down instead. Needs torch.

That is what the attention kernels of a card keep, and that Triton works on the logits in place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from trl.kernels import chunked_logprob


@contextlib.contextmanager
def card_attention(card: bool) -> Iterator[None]:
    """Models meanwhile attend as they do on a card, or, where it is false, as they do here."""
    if not card:
        yield
        return
    ALL_ATTENTION_FUNCTIONS["sdpa"] = _kernels
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]


def _kernels(
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
def loss_kernels(chunk: int, card: bool, triton: bool) -> Iterator[None]:
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
