"""The ledger: which offsets of a partition are finished, and how far that can be committed.

Jobs finish out of order; a committed offset says "everything before this is finished". So the
ledger commits the contiguous finished prefix as the position, and what is finished beyond it as a
list in the commit's metadata (worker/queue/done_list.py), so that the next owner leaves it alone.
Offsets that the log skips (transaction markers, deleted records) are nobody's work and count as
finished.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

from aril.worker.queue.done_list import FULL_SHARE, METADATA_BYTES, encode, text_size, varint_size

if TYPE_CHECKING:
    from collections.abc import Iterable


class Checkpoint(NamedTuple):
    """What is committed of a partition: where to go on, and what of the rest is finished."""

    position: int
    metadata: str


class Ledger:
    """Open and finished offsets of one partition, in one assignment.

    ``done`` is what an earlier owner finished beyond the position: it is never open here.
    """

    def __init__(self, position: int, done: Iterable[range] = ()) -> None:
        if position < 0:
            raise ValueError(f"a position is not negative: {position}")
        self._position = position  # every offset below is finished
        self._next = position  # first offset that was not read yet
        self._open = 0
        # Beyond the position: where finished runs begin and end, in turn. The list is as long as
        # the work is out of order, not as long as the look-ahead.
        self._edges: list[int] = []
        self._body_bytes = 0  # of the encoded list, kept up to date change by change
        self._metadata: str | None = ""  # None: to be encoded again
        for run in done:
            self._fill(run.start, run.stop)

    @property
    def next_offset(self) -> int:
        """The first offset that was not read yet."""
        return self._next

    @property
    def open(self) -> int:
        """How many offsets were read and are not finished."""
        return self._open

    @property
    def position(self) -> int:
        """What may be committed: every offset below is finished."""
        return self._position

    @property
    def done_beyond(self) -> list[range]:
        """The runs of finished offsets beyond the position, lowest first."""
        return [range(*pair) for pair in zip(self._edges[::2], self._edges[1::2], strict=True)]

    @property
    def crowded(self) -> bool:
        """Whether the done list is nearly full, so that the oldest work should be finished first.

        Only while something is open: with nothing in hand, waiting would make no room. A worker
        that starts with a full list must read on, to finish what lies between its runs.
        """
        return self._open > 0 and text_size(self._body_bytes) >= FULL_SHARE * METADATA_BYTES

    def metadata(self) -> str:
        """Return the done list as text; what does not fit is left out, highest first."""
        if self._metadata is None:
            self._metadata = encode(self._position, self.done_beyond, METADATA_BYTES)
        return self._metadata

    def checkpoint(self) -> Checkpoint:
        """Return what there is to commit."""
        return Checkpoint(self._position, self.metadata())

    def is_done(self, offset: int) -> bool:
        """Tell whether an offset is known to be finished, by this owner or an earlier one."""
        return offset < self._position or bisect_right(self._edges, offset) % 2 == 1

    def read(self, offset: int) -> bool:
        """Note that an offset was read. False if it is no work: read before, or done already."""
        if offset < self._next:
            return False
        self._fill(self._next, offset)
        self._next = offset + 1
        if self.is_done(offset):
            return False
        self._open += 1
        return True

    def pass_over(self, last: int, stop: int) -> None:
        """Note that the log has no work between `last`, if that was the last one read, and `stop`.

        The end of a batch that cannot be unpacked is known before anything behind it is read, which
        may take for ever.
        """
        if self._next == last + 1 and stop > self._next:
            self._fill(self._next, stop)
            self._next = stop

    def finish(self, offset: int) -> None:
        """Note that an offset needs no more work. Raises ValueError if it is not open."""
        if offset >= self._next or self.is_done(offset):
            raise ValueError(f"offset {offset} is not open")
        self._open -= 1
        self._fill(offset, offset + 1)

    def _fill(self, start: int, stop: int) -> None:
        """Make one run of [start, stop) and whatever it overlaps or touches."""
        start = max(start, self._position)
        if start >= stop:
            return
        self._metadata = None
        edges = self._edges
        # An even index is outside all runs. What it touches counts as inside, so that it merges.
        low, high = bisect_left(edges, start), bisect_right(edges, stop)
        merged = [start] * (low % 2 == 0) + [stop] * (high % 2 == 0)
        self._body_bytes -= self._size(low, high + 1)
        edges[low:high] = merged
        self._body_bytes += self._size(low, low + len(merged) + 1)
        if edges[0] == self._position:
            self._body_bytes -= self._size(0, 3)
            self._position = edges[1]
            del edges[:2]
            self._body_bytes += self._size(0, 1)

    def _size(self, low: int, high: int) -> int:
        """Return the encoded size of the edges [low, high): each is a distance to the one before.

        The distance of 0, of a run that begins at the position, is never encoded and has no size.
        """
        before = self._edges[low - 1] if low else self._position
        size = 0
        for edge in self._edges[low:high]:
            size += varint_size(edge - before)
            before = edge
        return size
