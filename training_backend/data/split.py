"""Which rows are trained on, how often, and which are held out. Light and deterministic.

The same rows, weights and seed give the same choice on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence


def hold_out(keys: Sequence[Hashable], fraction: float, seed: int) -> list[int]:
    """The places of the rows to test on, about `fraction` of them, in order.

    Rows with the same key (duplicates) stay together, so that no row that is tested on is
    trained on too. The share is met as nearly as their groups allow from below; it is empty
    where not one group is small enough.
    """
    groups: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(key, []).append(place)
    wanted = round(len(keys) * fraction)
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    held: list[int] = []
    for group in order:
        if len(held) + len(group) <= wanted:
            held += group
    return sorted(held)


def choose(places: Sequence[int], count: int, seed: int) -> list[int]:
    """So many of the places, in their order; all where there are no more.

    A smaller choice is a part of every larger one with the same seed, so that trainings on more
    and more rows differ in what was added alone.
    """
    order = list(places)
    random.Random(seed).shuffle(order)
    return sorted(order[:count])


def mix(sources: Sequence[Sequence[int]], weights: Sequence[float | None], seed: int) -> list[int]:
    """The rows of one epoch of a mixture, shuffled.

    Without weights each row once. With weights, sources come in these shares and every row
    at least once: the source that its share gives the fewest repeats is taken once, the
    others as often as it takes, a part of their rows once more than the rest.

    Args:
        sources: the rows of each source; one without rows takes no part.
        weights: of each source, above 0; None is 1 unless all are None.
    """
    chance = random.Random(seed)
    if all(weight is None for weight in weights):
        weights = [len(rows) or 1 for rows in sources]
    shares = [1.0 if weight is None else weight for weight in weights]
    per_weight = max(
        (len(rows) / share for rows, share in zip(sources, shares, strict=True)), default=0.0
    )
    epoch: list[int] = []
    for rows, share in zip(sources, shares, strict=True):
        if not rows:
            continue
        whole, rest = divmod(max(round(share * per_weight), len(rows)), len(rows))
        epoch += list(rows) * whole + chance.sample(list(rows), rest)
    chance.shuffle(epoch)
    return epoch
