"""Which token is likeliest to come, by what followed the same tokens before, and how surely.

All places count, the longer the match the more, as in compression by partial matching. How often
such a vote is right hangs on four things most: whether the longest match is the sequence's own,
how long it is, which share of the votes the token has, and how many places say so. The evidence
for a vote is a number of what it had of these.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import product
from typing import TYPE_CHECKING, Final

from aril.worker.engine.ngrams import LONGEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.worker.engine.ngrams import NgramIndex

# A match of one token more counts four times as much.
_WEIGHTS: Final = tuple(4**length for length in range(LONGEST + 1))

_LENGTHS: Final = (3, 5)  # of matches: below, between, from there on
_SHARES: Final = (0.45, 0.7, 0.95)
_COUNTS: Final = (2, 4)  # of places

# Before anything is known, by share and count. Extractions, copies and stories of SmolLM2-135M gave
# 0.03 to 0.1 and 0.9 to 1 at the ends; in between they differ, and this is nearer to the lower.
_FIRST: Final = (
    (0.05, 0.1, 0.2),
    (0.1, 0.2, 0.4),
    (0.2, 0.4, 0.6),
    (0.3, 0.7, 0.9),
)
_OF_PAIRS: Final = 0.5  # of these where but two tokens match

FIRST_RATES: Final = tuple(
    _FIRST[share][count] * (1.0 if length else _OF_PAIRS)
    for _own, length, share, count in product(
        range(2), range(len(_LENGTHS) + 1), range(len(_SHARES) + 1), range(len(_COUNTS) + 1)
    )
)
"""How often a vote is right before anything is known, by its evidence."""


def likeliest(tail: Sequence[int], own: NgramIndex, earlier: NgramIndex) -> tuple[int, int] | None:
    """Return the token that likeliest follows `tail`, and the evidence for it; None for no match.

    Of equal ones the sequence's own counts, and of these the latest.
    """
    followers = own.followers(tail), earlier.followers(tail)
    if followers == ([], []):
        return None
    votes: dict[int, list[int]] = {}  # a token: its weight and its places
    longest = [0, 0]
    whole = 0
    for source, found in enumerate(followers):
        for length, token in found:
            weight = _WEIGHTS[length]
            whole += weight
            longest[source] = max(longest[source], length)
            vote = votes.get(token)
            if vote is None:
                votes[token] = [weight, 1]
            else:
                vote[0] += weight
                vote[1] += 1
    token = max(votes, key=votes.__getitem__)
    weight, count = votes[token]
    evidence = int(longest[1] > longest[0])
    for bounds, value in (
        (_LENGTHS, max(longest)),
        (_SHARES, weight / whole),
        (_COUNTS, count),
    ):
        evidence = evidence * (len(bounds) + 1) + bisect_right(bounds, value)
    return token, evidence
