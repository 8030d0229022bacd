"""Where some tokens stood before, and what followed them there."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LONGEST: Final = 6  # tokens that are compared: a longer match is little better
LOOKS: Final = 16  # places that are compared, the latest first

_BITS: Final = 32  # of a token's id in a pair's key


class NgramIndex:
    """Tokens by their pairs; each is taken in once.

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

    def latest(self, count: int) -> list[int]:
        """Return the last tokens, up to so many, which is at least one."""
        return self._ids[-count:]

    def extend(self, ids: Iterable[int]) -> None:
        """Take in the next tokens."""
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

    def followers(self, tail: Sequence[int]) -> list[tuple[int, int]]:
        """Return the tokens that followed the last ones of `tail`, the latest first.

        Each with how many tokens before it are those of `tail`: at least two, at most LONGEST.
        """
        if len(tail) < 2:  # noqa: PLR2004 - a pair
            return []
        found: list[tuple[int, int]] = []
        place = self._last.get(tail[-2] << _BITS | tail[-1], 0)
        if not place:
            return found
        ids, before = self._ids, self._before
        for _ in range(LOOKS):
            most = min(LONGEST, place, len(tail))
            same = 2
            while same < most and ids[place - 1 - same] == tail[-1 - same]:
                same += 1
            found.append((same, ids[place]))
            place = before[place]
            if not place:
                break
        return found
