"""Held-out rows and mixtures: deterministic, and nothing leaks."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from training_backend.data.split import choose, hold_out, mix

keys = st.lists(st.integers(0, 30), min_size=2, max_size=200)


@given(keys, st.floats(0.01, 0.5), st.integers(0, 5))
def test_no_held_out_row_has_a_duplicate_among_the_rest(
    keys: list[int], fraction: float, seed: int
) -> None:
    held = hold_out(keys, fraction, seed)
    rest = {key for place, key in enumerate(keys) if place not in set(held)}
    assert not rest & {keys[place] for place in held}
    assert len(held) <= round(len(keys) * fraction)
    assert held == hold_out(keys, fraction, seed)


def test_the_share_is_met_where_all_rows_differ() -> None:
    assert len(hold_out(range(1000), 0.05, 1)) == 50
    assert hold_out(range(1000), 0.05, 1) != hold_out(range(1000), 0.05, 2)


@given(st.lists(st.integers(0, 500), unique=True), st.integers(1, 400), st.integers(1, 400))
def test_a_smaller_choice_is_part_of_a_larger_one(
    places: list[int], some: int, others: int
) -> None:
    few, many = (set(choose(places, count, 7)) for count in sorted((some, others)))
    assert few <= many <= set(places)
    assert len(few) == min(some, others, len(places))


def test_the_choice_depends_on_the_seed_and_takes_from_everywhere() -> None:
    assert choose(range(1000), 50, 1) != choose(range(1000), 50, 2)
    assert max(choose(range(1000), 50, 1)) > 800
    assert choose(range(9), 50, 1) == list(range(9))


def test_without_weights_every_row_comes_once() -> None:
    assert sorted(mix([[0, 1, 2], [3]], [None, None], 0)) == [0, 1, 2, 3]


def test_weights_are_shares_of_the_rows() -> None:
    epoch = mix([list(range(100)), list(range(100, 200))], [3, 1], 0)
    counts = Counter(place < 100 for place in epoch)
    assert counts[True] == 3 * counts[False] == 300


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
    st.data(),
    st.integers(0, 5),
)
def test_every_row_of_a_mixture_is_there_and_shares_hold(
    sizes: list[int], data: st.DataObject, seed: int
) -> None:
    weights = [data.draw(st.floats(0.1, 10)) for _ in sizes]
    sources, start = [], 0
    for size in sizes:
        sources.append(list(range(start, start + size)))
        start += size
    epoch = mix(sources, weights, seed)
    assert set(epoch) == set(range(start))
    assert epoch == mix(sources, weights, seed)
    counts = Counter(epoch)
    parts = [(sum(counts[p] for p in rows), w) for rows, w in zip(sources, weights, strict=True)]
    for size, weight in parts:
        for other, its_weight in parts:
            if size and other:
                assert abs(size / weight - other / its_weight) <= 0.5 / weight + 0.5 / its_weight
    for rows in sources:  # none much more often than another of its source
        assert len(rows) == 0 or max(counts[p] for p in rows) - min(counts[p] for p in rows) <= 1
