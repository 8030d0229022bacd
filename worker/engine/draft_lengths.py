"""How many of its guesses each row of a step drafts: chosen for all rows together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MARGIN: Final = 1.02
"""A step with drafts is to bring so many times as much in the same time: chances are estimates."""


def draft_lengths(
    chances: Sequence[Sequence[float]],
    prices: Sequence[float],
    cost: Callable[[int], float],
    useful: int,
    most: int,
) -> list[int]:
    """Return how long each row's draft is, at most `most` tokens together.

    `chances` has each row's guesses, falling, each the chance that it and all before it come;
    `prices` what each costs beside its row's place in products. A step with k drafted tokens costs
    `cost(k)`, and it brings `useful` tokens without them. The likeliest guesses of all rows are
    taken, as many as bring the most tokens for the step's time.
    """
    ranked = sorted((-chance, row) for row, own in enumerate(chances) for chance in own)
    best, taken = MARGIN * useful / cost(0), 0
    brought, beside = float(useful), 0.0
    for count, (chance, row) in enumerate(ranked[:most], start=1):
        brought -= chance
        beside += prices[row]
        rate = brought / (cost(count) + beside)
        if rate > best:
            best, taken = rate, count
    lengths = [0] * len(chances)
    for _, row in ranked[:taken]:
        lengths[row] += 1
    return lengths
