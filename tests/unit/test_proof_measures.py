"""The arithmetic of the proof, against closed forms and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from training_backend.export import proof_measures
from training_backend.export.proof_measures import distances, surprise


def random(seed: int, places: int = 7, words: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (places, words)).astype(np.float32)


def probabilities(row: np.ndarray) -> list[float]:
    weights = [math.exp(float(x)) for x in row]
    return [weight / sum(weights) for weight in weights]


def test_the_divergence_is_that_of_the_definition() -> None:
    one, other = random(1), random(2)
    plain = sum(
        p * math.log(p / q)
        for a, b in zip(one, other, strict=True)
        for p, q in zip(probabilities(a), probabilities(b), strict=True)
    )
    found = distances(one, other, None)
    assert found.kl == pytest.approx(plain, rel=1e-6)
    assert found.places == 7 and found.base_effect == 0


def test_two_words_have_the_divergence_that_one_can_work_out() -> None:
    even, uneven = np.log([[0.5, 0.5]]), np.log([[0.25, 0.75]])
    assert distances(even, uneven, None).kl == pytest.approx(0.5 * math.log(4 / 3))


def test_what_adds_the_same_to_all_words_changes_nothing() -> None:
    one = random(1)
    assert distances(one, one + 100, None).kl == pytest.approx(0, abs=1e-6)


def test_the_share_of_the_change_is_one_with_it_and_nothing_without() -> None:
    base, trained = random(1), random(2)
    whole = distances(trained, trained, base)
    assert whole.overlap == pytest.approx(whole.effect) and whole.base_kl > 0
    none = distances(trained, base + 3, base)
    assert none.overlap == pytest.approx(0, abs=1e-4 * none.effect)
    assert none.kl == pytest.approx(whole.base_effect)
    half = distances(trained, (base + trained) / 2, base)
    assert half.overlap / half.effect == pytest.approx(0.5)


def test_rounding_on_top_leaves_the_share_near_one() -> None:
    base = random(1, 200, 5_000)
    trained = base + 0.1 * random(2, 200, 5_000)
    found = distances(trained, trained + 0.15 * random(3, 200, 5_000), base)
    assert found.overlap / found.effect == pytest.approx(1, abs=0.1)


def test_more_words_in_one_vocabulary_are_left_out() -> None:
    one, other = random(1), random(2)
    wide = np.hstack([other, np.full((7, 3), 5, np.float32)])
    assert distances(one, wide, None) == distances(one, other, None)


def test_a_word_that_is_impossible_adds_nothing() -> None:
    one = np.array([[0.0, 0.0, -math.inf]])
    assert distances(one, np.array([[0.0, 0.0, -math.inf]]), None).kl == 0
    assert math.isnan(distances(one, np.full((1, 3), math.nan), None).kl)


def test_blocks_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, base = random(1, 40), random(2, 40), random(3, 40)
    tokens = list(range(40))
    whole, surprised = distances(one, other, base), surprise(one, tokens)
    monkeypatch.setattr(proof_measures, "_BLOCK_VALUES", 150)
    parts = distances(one, other, base)
    for name in type(whole).__dataclass_fields__:
        assert getattr(parts, name) == pytest.approx(getattr(whole, name))
    assert surprise(one, tokens) == pytest.approx(surprised)


def test_the_surprise_of_tokens_is_their_negative_log_likelihood() -> None:
    logits = random(1, 3)
    plain = -sum(math.log(probabilities(logits[n])[token]) for n, token in enumerate((4, 0, 49)))
    assert surprise(logits, [4, 0, 49]) == pytest.approx(plain, rel=1e-6)
