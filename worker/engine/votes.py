"""Which token is likeliest to come, by what followed the same tokens before, and how surely.

All places count, the longer the match the more, as in compression by partial matching. How often
such a vote is right hangs on three things most: how long the longest match is, which share of the
votes the token has, and how many places say so. One of EVIDENCES is what a vote had of these.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final

from worker.engine.ngrams import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from worker.engine.ngrams import NgramIndex

# A match of one token more counts four times as much.
_WEIGHTS: Final = tuple(4**length for length in range(LONGEST + 1))

_LENGTHS: Final = (3, 5)  # of matches: below, between, from there on
_SHARES: Final = (0.45, 0.7, 0.95)  # beyond these
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
    for length, share, count in product(
        range(len(_LENGTHS) + 1), range(len(_SHARES) + 1), range(len(_COUNTS) + 1)
    )
)
"""How often a vote is right before anything is known, by its evidence."""

EVIDENCES: Final = len(FIRST_RATES)


def likeliest(tail: Sequence[int], indexes: Iterable[NgramIndex]) -> tuple[int, int] | None:
    """Return the token that likeliest follows `tail`, and the evidence for it; None for no match.

    Of equal ones the first index's counts, and in it the latest.
    """
    votes: dict[int, list[int]] = {}  # a token: its weight and its places
    longest = whole = 0
    for index in indexes:
        for length, token in index.followers(tail):
            weight = _WEIGHTS[length]
            whole += weight
            longest = max(longest, length)
            vote = votes.get(token)
            if vote is None:
                votes[token] = [weight, 1]
            else:
                vote[0] += weight
                vote[1] += 1
    if not votes:
        return None
    token = max(votes, key=votes.__getitem__)
    weight, count = votes[token]
    share = sum(weight > bound * whole for bound in _SHARES)
    sureness = share * (len(_COUNTS) + 1) + sum(count >= bound for bound in _COUNTS)
    of_length = (len(_SHARES) + 1) * (len(_COUNTS) + 1)
    return token, sum(longest >= bound for bound in _LENGTHS) * of_length + sureness
