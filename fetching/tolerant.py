"""Has aiokafka's consumers outlive batches that they cannot unpack. Leans on private parts of it.

Such a batch raises out of ``getmany``, which then has lost the records that it had gathered before,
of other partitions as well, though their positions have moved. So each fetched batch is wrapped
here before ``getmany`` sees it: what it cannot unpack ends the records of that fetch, without an
exception. Then it is read anew (`end_before_unreadable`), or left out (`skip_unreadable`). What is
private is pinned by tests/fetching/test_tolerant.py.

A batch that would unpack to more than memory is good for counts as one that cannot be unpacked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from aiokafka import errors
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.protocol.fetch import FetchRequest

from aril.fetching.disarm import disarmed, has_packed

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiokafka import AIOKafkaConsumer, TopicPartition

log: Final = logging.getLogger(__name__)

_OFFSET: Final = 2  # where aiokafka's RecordTooLargeError has the offset, among its arguments


class _Fetch(Protocol):
    """What was fetched of a partition, up to something that cannot be unpacked."""

    where: TopicPartition

    @property
    def next_fetch_offset(self) -> int:
        """The offset behind what was handed out."""

    def skip(self) -> bool:
        """Go on behind the batch that was last begun; False if that needs another fetch."""


def end_before_unreadable(
    consumer: AIOKafkaConsumer, unreadable: Callable[[TopicPartition, int], None]
) -> None:
    """Tell of a batch that cannot be unpacked, with the first offset that was not handed out.

    `consumer` has been started. It is told from within ``getmany``; unless the partition is paused
    there and then, the batch is fetched again at once.
    """

    def stop(batches: _Fetch) -> bool:
        unreadable(batches.where, batches.next_fetch_offset)
        return False

    _watch(consumer, stop)


def skip_unreadable(consumer: AIOKafkaConsumer) -> None:
    """Leave out what cannot be unpacked, the second time it is met at the same place."""
    met: dict[TopicPartition, int] = {}

    def skip(batches: _Fetch) -> bool:
        where, at = batches.where, batches.next_fetch_offset
        if met.get(where) != at:
            met[where] = at  # it may have been the network: it is fetched again
            return False
        goes_on = batches.skip()
        behind = batches.next_fetch_offset
        log.error("unreadable batch left out: %s/%d, %d to %d", *where, at, behind - 1)
        return goes_on

    _watch(consumer, skip)


def _watch(consumer: AIOKafkaConsumer, failed: Callable[[_Fetch], bool]) -> None:
    fetcher = consumer._fetcher  # noqa: SLF001 - see above
    watched = _Fetched(failed)
    for where, result in fetcher._records.items():  # noqa: SLF001 - see above
        watched[where] = result
    fetcher._records = watched  # noqa: SLF001 - see above
    fetcher._client = _Disarming(fetcher._client)  # noqa: SLF001 - see above


class _Disarming:
    """aiokafka's client, in place of it where its fetcher asks."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node: int, request: Any) -> Any:
        """Send a request; of what was fetched no batch unpacks to more than is allowed."""
        response = await self._client.send(node, request)
        if isinstance(request, FetchRequest) and _any_packed(response.topics):
            # In a thread: it is unpacked for that.
            response.topics = await asyncio.to_thread(disarmed, response.topics)
        return response


def _any_packed(topics: Any) -> bool:
    return any(has_packed(each[-1]) for _, found in topics for each in found if each[-1])


class _Fetched(OrderedDict[Any, Any]):
    """What was fetched and not handed out yet, by partition."""

    def __init__(self, failed: Callable[[_Fetch], bool]) -> None:
        super().__init__()
        self._failed = failed

    def __setitem__(self, where: TopicPartition, result: Any) -> None:
        if type(result) is FetchResult:
            records = result._partition_records  # noqa: SLF001 - see above
            result._partition_records = _Batches(where, records, self._failed)  # noqa: SLF001
        elif isinstance(error := getattr(result, "_error", None), errors.RecordTooLargeError):
            # Not one whole batch came, and brokers send the first one whole: it is torn.
            self._failed(_Torn(where, error.args[_OFFSET]))
            return
        super().__setitem__(where, result)


class _Torn:
    """A fetch that held no whole batch. aiokafka goes on one offset behind its start."""

    def __init__(self, where: TopicPartition, offset: int) -> None:
        self.where = where
        self.next_fetch_offset = offset

    def skip(self) -> bool:
        """Do nothing more: there are no records."""
        return False


class _Batches:
    """Records of one fetch; in place of aiokafka's PartitionRecords, which it asks."""

    def __init__(
        self, where: TopicPartition, records: Any, failed: Callable[[_Fetch], bool]
    ) -> None:
        self.where = where
        self._records = records
        self._failed = failed
        self._raw = records._records = _LastBatch(records._records)  # noqa: SLF001 - see above

    @property
    def next_fetch_offset(self) -> int:
        """The offset behind what was handed out."""
        offset: int = self._records.next_fetch_offset
        return offset

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        while True:
            try:
                return next(self._records)
            except StopIteration:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the rest is to be read
                place = (*self.where, self.next_fetch_offset, type(error).__name__)
                log.warning("unreadable batch: %s/%d at %d: %s", *place)
                if not self._failed(self):
                    raise StopIteration from None

    def skip(self) -> bool:
        """Go on behind the batch that was last begun; False if that needs another fetch."""
        last, records = self._raw.last, self._records
        behind = 0 if last is None else last.next_offset
        records.next_fetch_offset = max(behind, self.next_fetch_offset + 1)
        if last is None:
            return False
        records._records_iterator = records._unpack_records()  # noqa: SLF001 - see above
        return True


class _LastBatch:
    """Batches as they are fetched, one after the other; remembers which was the last."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self.last: Any = None

    def has_next(self) -> bool:
        more: bool = self._batches.has_next()
        return more

    def next_batch(self) -> Any:
        self.last = None
        self.last = self._batches.next_batch()
        return self.last
