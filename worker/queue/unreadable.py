"""Passes batches that aiokafka cannot unpack: reads them by hand, one partition at a time.

The partition rests meanwhile, and all others go on. What can be read of the batch is handed out
in its order; what cannot is put aside as it is. Then reading goes on behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, Protocol

from aiokafka import errors

from aril.fetching.raw import EmptyFetchError, fetch_batch
from aril.worker.job import Partition, Record
from aril.worker.observe.logs import get_logger
from aril.worker.queue.raw_batch import BATCH, Part, RawBatch, read_batch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiokafka import AIOKafkaConsumer, TopicPartition

    from aril.worker.queue.assignment import PartitionState

log = get_logger(__name__)

RETRY_SECONDS: Final = 1.0
FETCH_SECONDS: Final = 30.0


class Reader(Protocol):
    """Who holds the partitions."""

    async def state_of(self, where: TopicPartition) -> PartitionState | None:
        """Return a partition's state once the assignment is set up."""

    async def take(self, state: PartitionState, parts: Sequence[Part]) -> None:
        """Take in a batch, behind all that was read before it."""

    def resume(self) -> None:
        """Read again what no longer rests."""


class UnreadableBatches:
    """Those of one consumer that are looked at now."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._looking: dict[TopicPartition, asyncio.Task[None]] = {}

    def __contains__(self, where: TopicPartition) -> bool:
        return where in self._looking

    def found(self, consumer: AIOKafkaConsumer, where: TopicPartition, offset: int) -> None:
        """Look at a batch; called from within ``getmany``."""
        consumer.pause(where)
        if where not in self._looking:
            self._looking[where] = asyncio.create_task(self._look(consumer, where, offset))

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Stop looking there: their assignment has ended, and the next one meets them again."""
        for each in partitions:
            if (task := self._looking.pop(each, None)) is not None:
                task.cancel()

    async def _look(self, consumer: AIOKafkaConsumer, where: TopicPartition, offset: int) -> None:
        try:
            state = await self._reader.state_of(where)
            if state is not None:
                await self._pass(consumer, state, where, offset)
        except Exception:
            log.exception("batch_not_passed", **_place(where, offset))
            await asyncio.sleep(RETRY_SECONDS)
        if self._looking.get(where) is asyncio.current_task():
            del self._looking[where]
            self._reader.resume()

    async def _pass(
        self, consumer: AIOKafkaConsumer, state: PartitionState, where: TopicPartition, offset: int
    ) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                raw = await fetch_batch(consumer, where, offset)
            # In a thread: a batch has a megabyte, and this is no fast way of reading one.
            batch = await asyncio.to_thread(read_batch, Partition(*where), raw, offset)
        except (errors.KafkaError, EmptyFetchError, OSError, TimeoutError) as error:
            # The consumer deals with these itself; should it come back here, it is tried again.
            log.warning("batch_not_fetched", error=type(error).__name__, **_place(where, offset))
            await asyncio.sleep(RETRY_SECONDS)
            return
        except Exception as error:
            # Its place is put aside, without its bytes: they stay in the log until retention.
            log.exception("batch_skipped", **_place(where, offset))
            place = Record(Partition(*where), offset, 0, None, None, ())
            batch = RawBatch([Part(place, BATCH, type(error).__name__)], offset + 1)
        await self._reader.take(state, batch.parts)
        if not state.revoked:
            if state.ledger is not None and batch.parts:
                last = batch.parts[-1].record.offset
                state.ledger.pass_over(last, batch.next_offset)
            with contextlib.suppress(errors.IllegalStateError):  # revoked, and not yet told
                consumer.seek(where, batch.next_offset)


def _place(where: TopicPartition, offset: int) -> dict[str, object]:
    return {"topic": where.topic, "partition": where.partition, "offset": offset}
