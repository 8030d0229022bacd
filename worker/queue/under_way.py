"""Which jobs of a partition are under way, as its owner says with each commit. Pure.

A hint for whoever has the partition next, up to a second old when its owner crashed: only the order
in which that one takes jobs over hangs on it. What the owner before has said of offsets that were
not read since is told on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.worker.queue.done_list import (
    HINT_BYTES,
    decode_from,
    encode_from,
    holds,
    joined,
    runs_between,
    runs_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable


class UnderWay:
    """What was begun of one partition, in one assignment."""

    def __init__(self, before: Iterable[range], end_offset: int) -> None:
        """Prepare; `before` is what the last owner said. Beyond the log's end are no jobs of it."""
        self._before = runs_between(before, 0, end_offset)
        self._offsets: set[int] = set()  # of jobs that were read here
        self._told = self._before  # some may be finished by now

    def was_before(self, offset: int) -> bool:
        """Tell whether an earlier owner has begun a job, as far as it has said."""
        return holds(self._before, offset)

    def add(self, offset: int) -> None:
        """Note that a job is under way that was read here."""
        self._offsets.add(offset)

    def discard(self, offset: int) -> None:
        """Note that a job is finished."""
        self._offsets.discard(offset)

    def void(self) -> None:
        """Believe nothing of what was said before: it was of other records."""
        self._before = ()

    def tell(self, unread: int) -> bool:
        """Take what is under way as what is to be told; False if that is nothing new.

        From `unread` on nothing was read here.
        """
        told = joined([*runs_of(sorted(self._offsets)), *runs_between(self._before, unread)])
        if told == self._told:
            return False
        self._told = told
        return True

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self._told)

    def encode(self, position: int, limit: int) -> str:
        """Return what is told as text for a commit of a position: those that fit, lowest first."""
        return encode_from(position, runs_between(self._told, position), min(limit, HINT_BYTES))


def under_way_in(position: int, parts: Iterable[str]) -> tuple[range, ...]:
    """Read it, wherever it stands between the parts of what was committed with a position."""
    return next(filter(None, (decode_from(position, part) for part in parts)), ())
