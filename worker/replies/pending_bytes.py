"""What waits for a broker, in bytes: answers, claims, dead letters, look-ups, parked jobs. Pure.

A job that has ended is in no backlog any more, and a record that is only put aside never was: were
the brokers slow to take what is written of them, reading on would fill the memory. So reading rests
here as well. A partition rests earlier than all of them do, since it is mostly one that is flooded.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aril.worker.job import Partition, Record

TASK_BYTES: Final = 4_096  # a task, its coroutines, a request in the producer
SHARE: Final = 4  # a partition may take one part of so many


class PendingBytes:
    """Bytes under way, by the partition that their records came from."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes: Counter[Partition] = Counter()
        self._total = 0

    @property
    def bytes(self) -> int:
        """Bytes under way, over all partitions."""
        return self._total

    def full(self, source: Partition) -> bool:
        """Return whether nothing more should be read from that partition for now."""
        return self._bytes[source] * SHARE >= self._max_bytes or self._total >= self._max_bytes

    @contextmanager
    def held(self, record: Record) -> Iterator[None]:
        """Count a record while something is done about it."""
        self.add(record)
        try:
            yield
        finally:
            self.remove(record)

    def add(self, record: Record) -> None:
        """Count a record that waits."""
        self._change(record, _size(record))

    def remove(self, record: Record) -> None:
        """Count it no longer."""
        self._change(record, -_size(record))

    def _change(self, record: Record, size: int) -> None:
        self._total += size
        self._bytes[record.source] += size
        if not self._bytes[record.source]:
            del self._bytes[record.source]


def _size(record: Record) -> int:
    return TASK_BYTES + record.size
