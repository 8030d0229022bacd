"""The ledger: which offsets of a partition are finished, and how far that can be committed.

Jobs finish out of order; a committed offset says "everything before this is finished". So the
ledger holds what is open and commits the contiguous finished prefix. Offsets that the log skips
(transaction markers, aborted records) are nobody's work and hold nothing up.
"""

from __future__ import annotations

import heapq


class Ledger:
    """Open and finished offsets of one partition, in one assignment."""

    def __init__(self, position: int) -> None:
        if position < 0:
            raise ValueError(f"a position is not negative: {position}")
        self._next = position  # first offset that was not read yet
        self._open: set[int] = set()
        self._order: list[int] = []  # heap of offsets that were open once; lazily cleaned

    @property
    def next_offset(self) -> int:
        """The first offset that was not read yet."""
        return self._next

    @property
    def open(self) -> int:
        """How many offsets were read and are not finished."""
        return len(self._open)

    @property
    def position(self) -> int:
        """What may be committed: every offset below is finished."""
        while self._order and self._order[0] not in self._open:
            heapq.heappop(self._order)
        return self._order[0] if self._order else self._next

    def read(self, offset: int) -> bool:
        """Note that an offset was read. False, and nothing changes, if it was read before."""
        if offset < self._next:
            return False
        self._next = offset + 1
        self._open.add(offset)
        heapq.heappush(self._order, offset)
        return True

    def finish(self, offset: int) -> None:
        """Note that an offset needs no more work. Raises ValueError if it is not open."""
        if offset not in self._open:
            raise ValueError(f"offset {offset} is not open")
        self._open.remove(offset)
