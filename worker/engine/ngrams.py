"""Where a sequence's last tokens stood before, and what followed them there."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST: Final = 8  # tokens that are compared: a longer match is no better
LOOKS: Final = 16  # places that are compared, the latest first

_BITS: Final = 32  # of a token's id in a pair's key


class NgramIndex:
    """The tokens of one sequence, by their pairs; each token is taken in once.

    As in LZ77's match finders: a pair leads to where it stood last, and each place to where its
    pair stood before.
    """

    __slots__ = ("_before", "_ids", "_last")

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._last: dict[int, int] = {}  # a pair: the place behind it, where it stood last
        self._before = array("l")  # a place: that behind the same pair before; 0: none

    def __len__(self) -> int:
        """Tokens taken in."""
        return len(self._ids)

    def extend(self, ids: Iterable[int]) -> None:
        """Take in the sequence's next tokens."""
        known, last, before = self._ids, self._last, self._before
        for token in ids:
            place = len(known)
            if place > 1:
                pair = known[-2] << _BITS | known[-1]
                before.append(last.get(pair, 0))
                last[pair] = place
            else:
                before.append(0)
            known.append(token)

    def following(self, most: int) -> list[int]:
        """Return what followed the longest match of the last tokens, up to `most` of it.

        At least two tokens match; of equal matches the latest counts. What reaches the sequence's
        end goes on with itself, as a repetition does.
        """
        ids = self._ids
        end = len(ids)
        found, length = 0, 1
        place = self._last.get(ids[-2] << _BITS | ids[-1], 0) if end > 1 else 0
        for _ in range(LOOKS):
            if not place:
                break
            same = 2
            while same < min(LONGEST, place) and ids[place - 1 - same] == ids[end - 1 - same]:
                same += 1
            if same > length:
                found, length = place, same
                if length == LONGEST:
                    break
            place = self._before[place]
        if not found:
            return []
        guess = ids[found : found + most]
        while len(guess) < most:
            guess.append(guess[found + len(guess) - end])
        return guess
