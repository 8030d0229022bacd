"""Handing out what was read: in order, under its assignment, and not at the cost of all else.

A record may take tens of milliseconds to decode, and a poll brings a thousand. So after each slice
of time everything else on the event loop has its turn: streams, probes, heartbeats. Meanwhile an
assignment may end; what is left of it then is dropped, and read again by the next owner.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from aril.worker.job import Record
from aril.worker.queue.raw_batch import Part

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aril.worker.job import Partition
    from aril.worker.queue.assignment import PartitionState

SLICE_SECONDS: Final = 0.01  # others wait so long, and for the end of the record in hand


class Handler(Protocol):
    """Who works on what is read. Called on the event loop."""

    def on_assigned(self, states: Iterable[PartitionState]) -> None:
        """Take note of partitions that were won."""

    def on_records(self, state: PartitionState, records: list[Record]) -> None:
        """Take records of a partition that is held."""

    def on_unreadable(self, state: PartitionState, part: Part) -> None:
        """Put aside what is left of a record, or of a batch, that cannot be read."""

    def on_revoked(self, states: Iterable[PartitionState]) -> None:
        """Stop all work of these at once: they may belong to somebody else in a moment."""

    def on_lost_jobs(self, source: Partition, count: int) -> None:
        """Count jobs that retention deleted before anybody finished them."""

    def is_full(self, source: Partition) -> bool:
        """Tell whether reading a partition should rest for now."""


class Delivery:
    """Hands records of one consumer to its handler."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._closed = False
        self._since = 0.0
        self.turn = asyncio.Lock()  # to be held while handing out: one poll, or one odd batch

    def close(self) -> None:
        """Hand out nothing more."""
        self._closed = True

    async def polled(self, batches: Iterable[tuple[PartitionState, list[Any]]]) -> None:
        """Hand out what one poll brought, as aiokafka's ConsumerRecords."""
        for state, records in list(batches):
            await self.hand_out(state, (_part(state.source, each) for each in records))

    async def hand_out(self, state: PartitionState, parts: Iterable[Part]) -> None:
        """Hand out records of one partition, in order, while its assignment lasts."""
        for part in parts:
            if state.revoked or self._closed:
                return
            if not state.read(part.record.offset):
                continue
            if part.reason is None:
                self._handler.on_records(state, [part.record])
            else:
                self._handler.on_unreadable(state, part)
            await self._give_way()

    async def _give_way(self) -> None:
        if time.perf_counter() - self._since >= SLICE_SECONDS:
            await asyncio.sleep(0)
            self._since = time.perf_counter()


def _part(source: Partition, got: Any) -> Part:
    return Part(Record(source, got.offset, got.timestamp, got.key, got.value, got.headers))
