"""The arithmetic of the proof, on logits. Light: numpy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training_backend.export.proof_speaker import Array

_BLOCK_VALUES = 4_000_000  # in work at once, as float64
_IMPOSSIBLE = -1e4  # a log-probability, in the place of minus infinity


@dataclass(frozen=True)
class Distances:
    """How two models compare along the same tokens; sums over `places`, in nats.

    `overlap` and `effect` are of the change that the adapter makes to the log-probabilities:
    what of it is in the candidate, and all of it, both weighted by the reference's probabilities.
    """

    places: int
    kl: float
    same_choice: int
    base_effect: float = 0.0
    base_kl: float = 0.0
    overlap: float = 0.0
    effect: float = 0.0


def distances(reference: Array, candidate: Array, base: Array | None) -> Distances:
    """KL(reference || candidate) and what else tells them apart; logits [places, vocabulary].

    KL(p || q) = sum p (log p - log q) (Kullback and Leibler 1951), of the next token. A model whose
    vocabulary was padded to a round size has more logits: what is beyond both is left out.

    Args:
        base: of the base without the adapter: `base_effect` is then KL(reference || base) and
            `base_kl` KL(base || candidate).
    """
    width = min(part.shape[1] for part in (reference, candidate, base) if part is not None)
    rows = max(1, _BLOCK_VALUES // width)
    kl = base_effect = base_kl = overlap = effect = 0.0
    same = 0
    for first in range(0, len(reference), rows):
        block = slice(first, first + rows)
        log_p = log_softmax(reference[block, :width])
        log_q = log_softmax(candidate[block, :width])
        p = np.exp(log_p)
        kl += _divergence(log_p, log_q)
        same += int((log_p.argmax(axis=1) == log_q.argmax(axis=1)).sum())
        if base is None:
            continue
        log_b = log_softmax(base[block, :width])
        base_effect += _divergence(log_p, log_b)
        base_kl += _divergence(log_b, log_q)
        change = _centred(log_p - log_b, p)
        overlap += float((p * change * _centred(log_q - log_b, p)).sum())
        effect += float((p * change**2).sum())
    return Distances(len(reference), kl, same, base_effect, base_kl, overlap, effect)


def _divergence(log_p: Array, log_q: Array) -> float:
    return float((np.exp(log_p) * (log_p - log_q)).sum())


def log_softmax(logits: Array) -> Array:
    """Along the last axis, as float64; of what is impossible a number that counts as none."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    total = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    floored: Array = np.maximum(total, _IMPOSSIBLE)
    return floored


def surprise(logits: Array, tokens: list[int]) -> float:
    """The negative log-likelihood of tokens, summed, in nats; logits [len(tokens), vocabulary]."""
    rows = max(1, _BLOCK_VALUES // logits.shape[1])
    total = 0.0
    for first in range(0, len(tokens), rows):
        found = log_softmax(logits[first : first + rows])
        total -= float(found[range(len(found)), tokens[first : first + rows]].sum())
    return total


def _centred(values: Array, weights: Array) -> Array:
    """Less their mean by the weights, which adds nothing to any probability."""
    centred: Array = values - (weights * values).sum(axis=1, keepdims=True)
    return centred
